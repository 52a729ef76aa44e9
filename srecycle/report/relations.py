"""Figures over runs: cost against quality, and curves over swept settings.

Pure functions from entries to charts; each returns none where the runs do not span what it shows. Quality is the first
figure of the comparison.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from srecycle.report.charts import (
    WIDTH,
    Chart,
    Key,
    Legend,
    Mark,
    Point,
    Scale,
    dot,
    fitted,
    label,
    line,
    path,
    scale_over,
)
from srecycle.report.comparison import Entry, compared, lower_is_better, plain, spoken
from srecycle.report.curves import MOST_NAMED, NAME_ROW, apart
from srecycle.report.figures import SERIES
from srecycle.report.runs import Figure
from srecycle.report.swept import Swept, sides, swept

_HEAD, _PLOT, _FOOT = 30.0, 300.0, 50.0
_MOST_CURVES = 4


def cost_chart(found: Sequence[Entry]) -> Chart | None:
    """Return quality by what the teacher's replies cost: in dollars, or in requests where all of them were free."""
    name = next(iter(compared(found)), None)
    shown = [entry for entry in found if not entry.failed and name in entry.figures]
    priced = any(entry.dollars for entry in shown)
    costs = {entry.label: entry.dollars if priced else entry.requests for entry in shown}
    points = [
        _Spot(x=float(cost), figure=entry.figures[name], name=entry.label)
        for entry in shown
        if name and (cost := costs[entry.label]) is not None
    ]
    if name is None or len({point.x for point in points}) < 2:
        return None
    what = "the teacher's replies, $" if priced else "requests to the teacher"
    x, y = _axes([point.x for point in points], [point.figure for point in points], 330.0)
    named = points if len(points) <= MOST_NAMED else _unbeaten(points, lower=lower_is_better(name))
    marks = [*_frame(x, y, what, spoken(name)), *_spots(points, x, y, "series-0"), *_names(named, x, y, what)]
    beaten = "" if named is points else " Named are those that no other run beats at the same cost or less."
    return Chart(
        name="cost",
        title="Cost against quality",
        caption="What the replies cost that a run rests on, whoever paid for them, and its first figure with one "
        f"standard error to each side.{beaten}",
        height=_HEAD + max(_PLOT, NAME_ROW * len(named)) + _FOOT,
        marks=marks,
    )


def _unbeaten(points: Sequence["_Spot"], *, lower: bool) -> list["_Spot"]:
    """Return the points, by cost, of which each is better than all that cost the same or less."""
    sign = 1.0 if lower else -1.0
    found: list[_Spot] = []
    for one in sorted(points, key=lambda one: (one.x, sign * one.figure.value)):
        if not found or sign * one.figure.value < sign * found[-1].figure.value:
            found.append(one)
    return found


def _names(points: Sequence["_Spot"], x: Scale, y: Scale, what: str) -> list[Mark]:
    """Return the names in a column at the right, in the order of the values, each tied to its dot."""
    ordered = sorted(points, key=lambda one: (-one.figure.value, one.name))
    bottom = max(y.start, _HEAD + NAME_ROW * len(points))
    column = x.start + x.length + 22
    marks = []
    for one, place in zip(ordered, apart([y(one.figure.value) for one in ordered], bottom), strict=True):
        marks.append(line(x(one.x) + 6, y(one.figure.value), column - 5, place, "grid"))
        marks.append(label(column, place + 4, fitted(one.name, WIDTH - column), title=_told(one, what)))
    return marks


def sweep_charts(found: Sequence[Entry]) -> list[Chart]:
    """Return a chart a swept number, of at least three values: the first figure and the share of rows kept by it."""
    known = [entry for entry in found if not entry.failed]
    return [chart for one in swept(known, least=3)[:_MOST_CURVES] if (chart := _sweep(known, one))]


@dataclass(frozen=True, kw_only=True)
class _Spot:
    x: float
    figure: Figure
    name: str


def _sweep(known: Sequence[Entry], across: Swept) -> Chart | None:
    """Return the curves over one setting: a curve for every combination of the others, seeds averaged."""
    tried = [(x, entry) for entry, x in zip(known, across.values, strict=True) if x is not None]
    several = [few for few in _apart(tried, across.field).values() if len({x for x, _ in few}) > 1]
    curves = _apart([one for few in several for one in few], across.field)  # told apart from what is drawn only
    name = next(iter(compared(known)), None)
    panels = [panel for panel in (_quality(curves, name), _kept(curves)) if panel]
    if not panels:
        return None
    return _panels(across.field, panels)


def _apart(tried: Sequence[tuple[float, Entry]], field: str) -> dict[str, list[tuple[float, Entry]]]:
    found: dict[str, list[tuple[float, Entry]]] = {}
    for side, one in zip(sides([entry for _, entry in tried], {field}), tried, strict=True):
        found.setdefault(side, []).append(one)
    return found


_Curves = Mapping[str, Sequence[_Spot]]


def _quality(curves: Mapping[str, Sequence[tuple[float, Entry]]], name: str | None) -> tuple[str, _Curves] | None:
    spots = {
        told: _averaged([(x, entry.figures[name]) for x, entry in few if name in entry.figures])
        for told, few in curves.items()
        if name
    }
    return (spoken(name), spots) if name and any(spots.values()) else None


def _kept(curves: Mapping[str, Sequence[tuple[float, Entry]]]) -> tuple[str, _Curves] | None:
    spots = {
        told: _averaged([(x, Figure(value=entry.kept_share)) for x, entry in few if entry.kept_share is not None])
        for told, few in curves.items()
    }
    return ("share of rows kept", spots) if any(spots.values()) else None


def _averaged(values: Sequence[tuple[float, Figure]]) -> list[_Spot]:
    """Return a spot a setting: runs that share it are averaged, their standard errors taken to be independent."""
    spots = []
    for x in sorted({x for x, _ in values}):
        few = [figure for at, figure in values if at == x]
        errors = [figure.stderr for figure in few]
        error = math.sqrt(sum(one**2 for one in errors if one is not None)) / len(few) if None not in errors else None
        value = sum(figure.value for figure in few) / len(few)
        spots.append(_Spot(x=x, figure=Figure(value=value, stderr=error), name=f"{len(few)} runs" if few[1:] else ""))
    return spots


def _panels(field: str, panels: Sequence[tuple[str, _Curves]]) -> Chart:
    every = dict.fromkeys(told for _, curves in panels for told, spots in curves.items() if spots)
    names = _highest(list(every), panels[0][1])
    width = (WIDTH - 60 * (len(panels) - 1)) / len(panels)
    marks: list[Mark] = []
    for place, (title, curves) in enumerate(panels):
        shown = [spot for told in names for spot in curves.get(told, ())]
        x, y = _axes([one.x for one in shown], [one.figure for one in shown], WIDTH - width)
        x = replace(x, start=x.start + place * (width + 60))
        marks += _frame(x, y, field, title)
        for series, told in enumerate(names):
            spots = curves.get(told, ())
            if len(spots) > 1:
                points = [Point(x=x(one.x), y=y(one.figure.value)) for one in spots]
                marks.append(path(points, f"curve series-{series}", title=told))
            marks += _spots(spots, x, y, f"series-{series}")
    left = len(every) - len(names)
    more = f" Drawn are the {SERIES} combinations that reach highest; {left} more are not." if left else ""
    keys = [Key(style=f"series-{series}", name=told) for series, told in enumerate(names) if told]
    return Chart(
        name=f"sweep-{field}",
        title=f"By {field}",
        caption=f"Runs that differ in their seeds only are averaged; bars are one standard error to each side.{more}",
        height=_HEAD + _PLOT + _FOOT,
        marks=marks,
        legends=[Legend(keys=keys)] if keys else [],
    )


def _highest(names: Sequence[str], curves: _Curves) -> list[str]:
    """Return the curves that reach highest, as many as can be told apart, in their order."""
    reached = {told: max((spot.figure.value for spot in curves.get(told, ())), default=-math.inf) for told in names}
    best = sorted(names, key=lambda told: -reached[told])[:SERIES]
    return [told for told in names if told in best]


def _axes(across: Sequence[float], figures: Sequence[Figure], room: float) -> tuple[Scale, Scale]:
    x = scale_over(across, 56, WIDTH - 60 - room)
    ends = [one.value + side * (one.stderr or 0.0) for one in figures for side in (-1, 1)]
    y = scale_over(ends, _HEAD + _PLOT, -_PLOT)
    return x, y


def _frame(x: Scale, y: Scale, across: str, up: str) -> list[Mark]:
    marks = [label(x.start - 46, 16, fitted(up, x.length), "label heading", title=up)]
    for tick in y.ticks(6):
        marks.append(line(x.start, y(tick), x.start + x.length, y(tick), "grid"))
        marks.append(label(x.start - 8, y(tick) + 4, y.named(tick, 6), "label tick", "end"))
    about = max(3, int(x.length / 90))
    for tick in x.ticks(about):
        marks.append(label(x(tick), y.start + 18, x.named(tick, about), "label tick", "middle"))
    marks.append(
        label(x.start + x.length, y.start + 38, fitted(across, x.length), "label heading", "end", title=across)
    )
    return marks


def _spots(points: Sequence[_Spot], x: Scale, y: Scale, style: str) -> list[Mark]:
    marks = []
    for one in points:
        if one.figure.stderr is not None:
            ends = (one.figure.value - one.figure.stderr, one.figure.value + one.figure.stderr)
            marks.append(line(x(one.x), y(ends[0]), x(one.x), y(ends[1]), f"leader {style}"))
        marks.append(dot(x(one.x), y(one.figure.value), 4, style, title=f"{one.name} {plain(one.figure)}".strip()))
    return marks


def _told(point: _Spot, what: str) -> str:
    return f"{point.name}: {plain(point.figure)}; {what}: {point.x:,g}"
