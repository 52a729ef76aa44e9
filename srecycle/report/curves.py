"""The report's figures of whole columns: score distributions before and after selection, and training curves.

Pure functions from arrays by run label to charts. Each returns None where no run has what it shows.
"""

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
from srecycle.report.evidence import Curve, Distribution, Values
from srecycle.report.figures import SERIES

_BIN = 0.04
"""The width of a histogram's bin: the threshold at 1 falls between two of them."""

_HEAD, _ROW, _FOOT, _GAP = 30.0, 78.0, 28.0, 44.0
_NAMES = {"ifd": "IFD", "r_ifd": "r-IFD"}
_BEFORE = Key(style="before", name="before: the original versions")
_AFTER = Key(style="after", name="after: the rows kept to train on")


def distribution_chart(found: Mapping[str, Mapping[str, Distribution]]) -> Chart | None:
    """Return histograms of IFD and r-IFD, a row a run: original versions behind, kept rows in front."""
    if not found:
        return None
    gutter = Gutter(names=list(found))
    width = (WIDTH - gutter.width - _GAP) / 2
    bottom = _HEAD + _ROW * len(found)
    marks = [gutter.name(name, _HEAD + place * _ROW + _ROW / 2 + 8) for place, name in enumerate(found)]
    beyond = 0
    for column, score in enumerate(_NAMES):
        left = gutter.width + column * (width + _GAP)
        shown = [one[score] for one in found.values()]
        scale = Scale(low=0.0, high=_upper(shown), start=left, length=width)
        marks.append(label(left, 18, _NAMES[score], "label heading"))
        for tick in scale.ticks(6):
            marks.append(line(scale(tick), _HEAD, scale(tick), bottom, "grid"))
            marks.append(label(scale(tick), bottom + 16, scale.named(tick, 6), "label tick", "middle"))
        peak = max(_shares(values, scale).max() for one in shown for values in (one.before, one.after))
        for place, one in enumerate(shown):
            height = Scale(low=0, high=float(peak) or 1.0, start=_HEAD + (place + 1) * _ROW, length=16 - _ROW)
            marks += _histograms(one, scale, height)
            beyond += int((one.before > scale.high).sum() + (one.after > scale.high).sum())
        marks.append(line(scale(1.0), _HEAD - 6, scale(1.0), bottom, "threshold"))
    note = f" {beyond:,} values beyond an axis stand in its last bin." if beyond else ""
    return Chart(
        name="distributions",
        title="IFD and r-IFD before and after",
        caption="Shares of rows by score; short ticks are medians, and the dashed line is the threshold at 1." + note,
        height=bottom + _FOOT,
        marks=marks,
        legends=[Legend(keys=[_BEFORE, _AFTER])],
    )


def _upper(shown: Sequence[Distribution]) -> float:
    """Return where the axis ends: past the threshold, and past all but the most extreme hundredth of the values."""
    values = np.concatenate([one.before for one in shown] + [one.after for one in shown])
    far = float(np.percentile(values, 99)) if len(values) else 1.0
    high = max(1.2, min(far, 4.0))
    return float(np.ceil(high * 5 - 1e-9) / 5)


def _shares(values: Values, scale: Scale) -> Values:
    """Return the share of values in each bin; those beyond the scale count in the last one."""
    bins = round((scale.high - scale.low) / _BIN)
    counts, _ = np.histogram(np.minimum(values, scale.high), bins=bins, range=(scale.low, scale.high))
    return np.asarray(counts / max(len(values), 1), dtype=np.float64)


def _histograms(one: Distribution, x: Scale, y: Scale) -> list[Mark]:
    marks = []
    for values, style in ((one.before, "before"), (one.after, "after")):
        if len(values):
            marks.append(path(_outline(_shares(values, x), x, y), f"area {style}"))
    marks.append(line(x.start, y.start, x.start + x.length, y.start, "base"))
    for values, style in ((one.before, "before"), (one.after, "after")):
        if len(values):
            middle = float(np.median(values))
            place = x(min(middle, x.high))
            marks.append(line(place, y.start, place, y.start + 6, f"median {style}"))
    said = f"{len(one.before):,} before, {len(one.after):,} kept"
    marks.append(label(x.start + x.length, y.start + y.length + 8, said, "label tick", "end"))
    return marks


def _outline(shares: Values, x: Scale, y: Scale) -> list[Point]:
    """Return the steps of a histogram, from the base line and back to it."""
    step = x.length / len(shares)
    points = [Point(x=x.start, y=y.start)]
    for place, share in enumerate(shares):
        left = x.start + place * step
        points += [Point(x=left, y=y(float(share))), Point(x=left + step, y=y(float(share)))]
    return [*points, Point(x=x.start + x.length, y=y.start)]


_MOST_POINTS = 60
_PLOT = 300.0
_LINE = 17.0


def curve_chart(found: Mapping[str, Curve]) -> Chart | None:
    """Return the training losses, a line a run, named at its end."""
    if not found:
        return None
    thinned = {name: _thinned(one) for name, one in found.items()}
    names = Gutter(names=list(found), most=270.0)
    losses = np.concatenate([one.losses for one in thinned.values()])
    room = float(losses.max() - losses.min()) * 0.05 or 0.5
    last = max(float(one.steps.max()) for one in thinned.values())
    x = Scale(low=0, high=max(last, 1.0), start=52, length=WIDTH - 62 - names.width)
    y = Scale(low=float(losses.min()) - room, high=float(losses.max()) + room, start=_HEAD + _PLOT, length=-_PLOT)
    marks = [*_curve_axes(x, y), *_named_lines(thinned, x, y, names.width)]
    averaged = (
        " Neighbouring steps are averaged." if any(len(one.steps) > _MOST_POINTS for one in found.values()) else ""
    )
    return Chart(
        name="curves",
        title="Training curves",
        caption="Mean loss (nats per token) on the run's own training set, by step: levels of different sets are not "
        "comparable, shapes are." + averaged,
        height=_HEAD + max(_PLOT, _LINE * len(found)) + _FOOT + 8,
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


def _named_lines(found: Mapping[str, Curve], x: Scale, y: Scale, width: float) -> list[Mark]:
    """Return the lines, and their names at the right, in the order of the lines' ends and apart from each other."""
    style = {name: f"series-{place % SERIES}" for place, name in enumerate(found)}
    ordered = sorted(found, key=lambda name: (-float(found[name].losses[-1]), name))
    bottom = max(y.start, _HEAD + _LINE * len(found))
    places = _apart([y(float(found[name].losses[-1])) for name in ordered], bottom)
    column = x.start + x.length + 22
    marks = []
    for name, place in zip(ordered, places, strict=True):
        one = found[name]
        points = [
            Point(x=x(step), y=y(loss)) for step, loss in zip(one.steps.tolist(), one.losses.tolist(), strict=True)
        ]
        said = f"{name}: {one.losses[0]:.3f} to {one.losses[-1]:.3f}"
        end = points[-1]
        if len(points) > 1:
            marks.append(path(points, f"curve {style[name]}", title=said))
        marks.append(dot(end.x, end.y, 2.5, style[name], title=said))
        marks.append(line(end.x + 4, end.y, column - 5, place, f"leader {style[name]}"))
        marks.append(label(column, place + 4, fitted(name, width - 24), "label", title=said))
    return marks


def _apart(wanted: Sequence[float], bottom: float) -> list[float]:
    """Move sorted heights as little as needed, so that names neither overlap nor fall below the bottom."""
    places: list[float] = []
    for height in wanted:
        places.append(max(height, places[-1] + _LINE) if places else height)
    for place in reversed(range(len(places))):
        below = places[place + 1] - _LINE if place + 1 < len(places) else bottom
        places[place] = min(places[place], below)
    return places
