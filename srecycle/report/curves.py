"""The report's figures of whole columns: score distributions before and after selection, and training curves.

Pure functions from arrays by run label to charts. Each returns None where no run has what it shows.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from srecycle.report.charts import (
    WIDTH,
    Chart,
    Gutter,
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
)
from srecycle.report.evidence import Curve, Distribution
from srecycle.report.figures import SERIES
from srecycle.report.tables import Values

_BIN = 0.1
"""The width of a histogram's bin in nats (about a tenth of the score): the threshold at 1 falls between two bins."""

_HEAD, _TALL, _LOW, _FOOT, _GAP = 30.0, 78.0, 50.0, 28.0, 44.0
_MANY_ROWS = 12
"""With more runs than this, rows are low."""

_NAMES = {"ifd": "IFD", "r_ifd": "r-IFD"}
_BEFORE = Key(style="before", name="before: the original versions")
_AFTER = Key(style="after", name="after: the rows kept to train on")
_ROUND = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def distribution_chart(found: Mapping[str, Mapping[str, Distribution]]) -> Chart | None:
    """Return histograms of IFD and r-IFD, a row a run: original versions behind, kept rows in front."""
    if not found:
        return None
    gutter = Gutter(names=list(found))
    width = (WIDTH - gutter.width - _GAP) / 2
    row = _TALL if len(found) <= _MANY_ROWS else _LOW
    bottom = _HEAD + row * len(found)
    marks = [gutter.name(name, _HEAD + place * row + row / 2 + 8) for place, name in enumerate(found)]
    for column, score in enumerate(_NAMES):
        shown = [_logarithms(one[score]) for one in found.values()]
        x = _score_scale(shown, gutter.width + column * (width + _GAP), width - 12)
        marks.append(label(x.start, 18, _NAMES[score], "label heading"))
        for tick in (tick for tick in _ROUND if x.low <= math.log(tick) <= x.high):
            marks.append(line(x(math.log(tick)), _HEAD, x(math.log(tick)), bottom, "grid"))
            marks.append(label(x(math.log(tick)), bottom + 16, f"{tick:g}", "label tick", "middle"))
        for place, one in enumerate(shown):
            peak = max(_shares(values, x).max() for values in (one.before, one.after))
            y = Scale(low=0, high=float(peak) or 1.0, start=_HEAD + (place + 1) * row, length=16 - row)
            marks += _histograms(one, x, y)
        marks.append(line(x(0.0), _HEAD - 6, x(0.0), bottom, "threshold"))
    return Chart(
        name="distributions",
        title="IFD and r-IFD before and after",
        caption="Shares of rows by score, on a logarithmic axis; the first and the last bin also count what lies "
        "beyond, and a row is as high as its own highest bin. Short ticks are medians; the dashed line is the "
        "threshold at 1.",
        height=bottom + _FOOT,
        marks=marks,
        legends=[Legend(keys=[_BEFORE, _AFTER])],
    )


def _logarithms(one: Distribution) -> Distribution:
    """Return the logarithms of the scores: they are ratios, and a student without a clue makes them huge."""
    return Distribution(before=np.log(one.before[one.before > 0]), after=np.log(one.after[one.after > 0]))


def _score_scale(shown: Sequence[Distribution], start: float, length: float) -> Scale:
    """Return an axis of whole bins around the threshold that shows all but the most extreme values."""
    values = np.concatenate([one.before for one in shown] + [one.after for one in shown])
    low, high = np.percentile(values, [2, 98]) if len(values) else (-1.0, 0.5)
    low, high = min(max(float(low), math.log(0.05)), -0.7), max(min(float(high), math.log(20)), 0.5)
    bins_below, bins_above = math.ceil(-low / _BIN), math.ceil(high / _BIN)
    return Scale(low=-bins_below * _BIN, high=bins_above * _BIN, start=start, length=length)


def _shares(values: Values, x: Scale) -> Values:
    """Return the share of values in each bin; those beyond the scale count in the first and the last one."""
    bins = round((x.high - x.low) / _BIN)
    places = np.clip(np.floor(values / _BIN) - round(x.low / _BIN), 0, bins - 1).astype(np.int64)
    return np.bincount(places, minlength=bins) / max(len(values), 1)


def _histograms(one: Distribution, x: Scale, y: Scale) -> list[Mark]:
    marks = []
    drawn = [(values, style) for values, style in ((one.before, "before"), (one.after, "after")) if len(values)]
    for values, style in drawn:
        marks.append(path(_outline(_shares(values, x), x, y), f"area {style}"))
    marks.append(line(x.start, y.start, x.start + x.length, y.start, "base"))
    for values, style in drawn:
        middle = x(float(np.clip(np.median(values), x.low, x.high)))
        marks.append(line(middle, y.start, middle, y.start + 6, f"median {style}"))
    said = f"{len(one.before):,} before, {len(one.after):,} kept"
    marks.append(label(x.start + x.length, y.start + y.length + 8, said, "label tick", "end"))
    return marks


def _outline(shares: Values, x: Scale, y: Scale) -> list[Point]:
    """Return the steps of a histogram, from the base line and back to it."""
    step = x.length / len(shares)
    points = [Point(x=x.start, y=y.start)]
    for place, share in enumerate(shares.tolist()):
        left = x.start + place * step
        points += [Point(x=left, y=y(share)), Point(x=left + step, y=y(share))]
    return [*points, Point(x=x.start + x.length, y=y.start)]


_MOST_POINTS = 60
_PLOT = 300.0
NAME_ROW = 17.0
"""The height of a name beside a chart."""

MOST_NAMED = 24
"""With more than this, names beside a chart would hide more than they tell."""


def curve_chart(found: Mapping[str, Curve]) -> Chart | None:
    """Return the training losses, a line a run, named at its end."""
    if not found:
        return None
    thinned = {name: _thinned(one) for name, one in found.items()}
    named = len(found) <= MOST_NAMED
    names = Gutter(names=list(found)).width if named else 0.0
    losses = np.concatenate([one.losses for one in thinned.values()])
    room = float(losses.max() - losses.min()) * 0.05 or 0.5
    last = max(float(one.steps.max()) for one in found.values())
    x = Scale(low=0, high=max(last, 1.0), start=52, length=WIDTH - 62 - names)
    y = Scale(low=float(losses.min()) - room, high=float(losses.max()) + room, start=_HEAD + _PLOT, length=-_PLOT)
    marks = [*_curve_axes(x, y), *_lines(thinned, x, y), *(_line_names(thinned, x, y, names) if named else ())]
    averaged = " Neighbouring steps are averaged." * any(len(one.steps) > _MOST_POINTS for one in found.values())
    return Chart(
        name="curves",
        title="Training curves",
        caption="Mean loss (nats per token) on the run's own training set, by step: levels of different sets are not "
        f"comparable, shapes are.{averaged}{'' if named else ' Point at a line for its run.'}",
        height=_HEAD + max(_PLOT, NAME_ROW * len(found) if named else 0.0) + _FOOT + 8,
        marks=marks,
    )


def _thinned(one: Curve) -> Curve:
    """Average neighbouring steps, so that a line has at most so many points."""
    parts = min(len(one.steps), _MOST_POINTS)
    return Curve(
        steps=np.array([part.mean() for part in np.array_split(one.steps, parts)]),
        losses=np.array([part.mean() for part in np.array_split(one.losses, parts)]),
    )


def _curve_axes(x: Scale, y: Scale) -> list[Mark]:
    marks = [label(x.start - 40, 18, "loss", "label heading")]
    for tick in y.ticks(6):
        marks.append(line(x.start, y(tick), x.start + x.length, y(tick), "grid"))
        marks.append(label(x.start - 8, y(tick) + 4, y.named(tick, 6), "label tick", "end"))
    for tick in x.ticks(8):
        marks.append(label(x(tick), y.start + 18, x.named(tick, 8), "label tick", "middle"))
    marks.append(label(x.start + x.length, y.start + 34, "step", "label tick", "end"))
    return marks


def _lines(found: Mapping[str, Curve], x: Scale, y: Scale) -> list[Mark]:
    """Return the lines, with a dot at their ends."""
    marks = []
    for place, (name, one) in enumerate(found.items()):
        points = [
            Point(x=x(step), y=y(loss)) for step, loss in zip(one.steps.tolist(), one.losses.tolist(), strict=True)
        ]
        if len(points) > 1:
            marks.append(path(points, f"curve series-{place % SERIES}", title=_ends(name, one)))
        marks.append(dot(points[-1].x, points[-1].y, 2.5, f"series-{place % SERIES}", title=_ends(name, one)))
    return marks


def _line_names(found: Mapping[str, Curve], x: Scale, y: Scale, width: float) -> list[Mark]:
    """Return the lines' names at the right, in the order of the lines' ends and apart from each other."""
    style = {name: f"series-{place % SERIES}" for place, name in enumerate(found)}
    ordered = sorted(found, key=lambda name: (-float(found[name].losses[-1]), name))
    bottom = max(y.start, _HEAD + NAME_ROW * len(found))
    places = apart([y(float(found[name].losses[-1])) for name in ordered], bottom)
    column = x.start + x.length + 22
    marks = []
    for name, place in zip(ordered, places, strict=True):
        one = found[name]
        end = Point(x=x(float(one.steps[-1])), y=y(float(one.losses[-1])))
        marks.append(line(end.x + 4, end.y, column - 5, place, f"leader {style[name]}"))
        marks.append(label(column, place + 4, fitted(name, width - 24), "label", title=_ends(name, one)))
    return marks


def _ends(name: str, one: Curve) -> str:
    return f"{name}: {one.losses[0]:.3f} to {one.losses[-1]:.3f}"


def apart(wanted: Sequence[float], bottom: float) -> list[float]:
    """Move sorted heights as little as needed, so that names neither overlap nor fall below the bottom."""
    places: list[float] = []
    for height in wanted:
        places.append(max(height, places[-1] + NAME_ROW) if places else height)
    for place in reversed(range(len(places))):
        below = places[place + 1] - NAME_ROW if place + 1 < len(places) else bottom
        places[place] = min(places[place], below)
    return places
