"""Figures over runs: cost against quality, curves over swept settings, and teachers by students.

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
    rect,
    scale_over,
)
from srecycle.report.comparison import Difference, Entry, compared, differences, number, plain, spoken
from srecycle.report.curves import NAME_ROW, apart
from srecycle.report.figures import SERIES
from srecycle.report.runs import Figure, brief

_HEAD, _PLOT, _FOOT = 30.0, 300.0, 50.0
_MOST_CURVES = 4
_UNSWEPT = ("seed", "revision")


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
    marks = [*_frame(x, y, what, spoken(name)), *_spots(points, x, y, "series-0"), *_names(points, x, y, what)]
    return Chart(
        name="cost",
        title="Cost against quality",
        caption="What the replies cost that a run rests on, whoever paid for them, and its first figure with one "
        "standard error to each side.",
        height=_HEAD + max(_PLOT, NAME_ROW * len(points)) + _FOOT,
        marks=marks,
    )


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
    fields = differences([entry.run for entry in known]) if known else []
    swept = [one for one in fields if _numbers(one) and one.field.rpartition(".")[2] not in _UNSWEPT]
    return [chart for one in swept[:_MOST_CURVES] if (chart := _sweep(known, one, fields))]


def _numbers(field: Difference) -> bool:
    values = {value for value in field.values if value}
    return len(values) >= 3 and all(_is_number(value) for value in values)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class _Spot:
    x: float
    figure: Figure
    name: str


def _sweep(known: Sequence[Entry], swept: Difference, fields: Sequence[Difference]) -> Chart | None:
    """Return the curves over one setting: a curve for every combination of the others, seeds averaged."""
    others = [one for one in fields if one is not swept and one.field.rpartition(".")[2] not in _UNSWEPT]
    curves: dict[str, list[tuple[float, Entry]]] = {}
    for place, entry in enumerate(known):
        if swept.values[place]:
            told = ", ".join(f"{one.field}={one.values[place]}" for one in others if one.values[place])
            curves.setdefault(told, []).append((float(swept.values[place]), entry))
    curves = {told: few for told, few in curves.items() if len({x for x, _ in few}) > 1}
    name = next(iter(compared(known)), None)
    panels = [panel for panel in (_quality(curves, name), _kept(curves)) if panel]
    if not panels:
        return None
    return _panels(swept.field, panels)


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
    names = list(dict.fromkeys(told for _, curves in panels for told, spots in curves.items() if spots))
    width = (WIDTH - 60 * (len(panels) - 1)) / len(panels)
    marks: list[Mark] = []
    for place, (title, curves) in enumerate(panels):
        every = [spot for told in names[:SERIES] for spot in curves.get(told, ())]
        x, y = _axes([one.x for one in every], [one.figure for one in every], WIDTH - width)
        x = replace(x, start=x.start + place * (width + 60))
        marks += _frame(x, y, field, title)
        for series, told in enumerate(names[:SERIES]):
            spots = curves.get(told, ())
            if len(spots) > 1:
                points = [Point(x=x(one.x), y=y(one.figure.value)) for one in spots]
                marks.append(path(points, f"curve series-{series}", title=told))
            marks += _spots(spots, x, y, f"series-{series}")
    more = f" {len(names) - SERIES} more combinations are not drawn." if len(names) > SERIES else ""
    keys = [Key(style=f"series-{series}", name=told) for series, told in enumerate(names[:SERIES]) if told]
    return Chart(
        name=f"sweep-{field}",
        title=f"By {field}",
        caption=f"Runs that differ in their seeds only are averaged; bars are one standard error to each side.{more}",
        height=_HEAD + _PLOT + _FOOT,
        marks=marks,
        legends=[Legend(keys=keys)] if keys else [],
    )


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


def pairing_chart(found: Sequence[Entry]) -> Chart | None:
    """Return the heat map of the first figure by teacher and student, where the runs have two of each at least."""
    name = next(iter(compared(found)), None)
    cells: dict[tuple[str, str], list[float]] = {}
    for entry in found:
        if name and name in entry.figures and not entry.failed:
            cells.setdefault((_part(entry, "teacher"), _part(entry, "student")), []).append(entry.figures[name].value)
    teachers, students = (sorted({pair[place] for pair in cells}) for place in (0, 1))
    if name is None or min(len(teachers), len(students)) < 2:
        return None
    means = {pair: sum(values) / len(values) for pair, values in cells.items()}
    left, row = 240.0, 34.0
    width = min((WIDTH - left) / len(students), 170.0)
    depth = scale_over(list(means.values()), 0.05, 0.9, margin=0.0)
    marks = []
    for (teacher, student), value in means.items():
        x, y = left + students.index(student) * width, _HEAD + teachers.index(teacher) * row
        told = f"{teacher}, {student}: {number(value)}, {len(cells[teacher, student])} runs"
        box = rect(x, y, width - 2, row - 2, "cell", title=told)
        marks.append(replace(box, geometry={**box.geometry, "fill-opacity": round(depth(value), 3)}))
        style = "label on-cell" if depth(value) > 0.5 else "label"
        marks.append(label(x + width / 2, y + row / 2 + 4, number(value), style, "middle", title=told))
    for place, teacher in enumerate(teachers):
        at = _HEAD + (place + 0.5) * row + 4
        marks.append(label(left - 12, at, fitted(teacher, left - 14), "label", "end", title=teacher))
    for place, student in enumerate(students):
        marks.append(label(left + (place + 0.5) * width, 18, fitted(student, width), "label", "middle", title=student))
    return Chart(
        name="pairings",
        title=f"Teachers and students: {spoken(name)}",
        caption="Teachers down, students across; the mean of the runs of each pair, the darker the higher.",
        height=_HEAD + row * len(teachers) + 12,
        marks=marks,
    )


def _part(entry: Entry, part: str) -> str:
    """Return which teacher or student a run has: the choice, and what was overridden of it."""
    own = [brief(one) for one in entry.run.overrides if one.startswith(f"{part}.") and ".device=" not in one]
    return " ".join([entry.run.choices.get(part, part), *own])
