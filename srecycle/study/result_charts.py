"""The figures of a study's tables: contrasts with their intervals, and accuracy along the levels of a factor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

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
    rect,
    scale_over,
)
from srecycle.study.contrasts import Estimate

_HEAD, _ROW, _FOOT, _PLOT = 16.0, 30.0, 40.0, 300.0
_SERIES = 8
_UNEVEN = 10.0
_LEFT, _RIGHT = 60.0, 24.0


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A contrast by its name; `clear` where it stands after correction."""

    name: str
    estimate: Estimate
    clear: bool


def forest_chart(name: str, title: str, bars: Sequence[Bar]) -> Chart:
    """Return contrasts as dots with their intervals, in points of accuracy; a ring marks those that stand."""
    gutter = Gutter(names=[bar.name for bar in bars])
    ends = [100 * value for bar in bars for value in (bar.estimate.low, bar.estimate.high)]
    x = scale_over([*ends, 0.0], gutter.width, WIDTH - gutter.width - 150)
    bottom = _HEAD + _ROW * len(bars)
    marks: list[Mark] = []
    for tick in x.ticks(8):
        marks.append(line(x(tick), _HEAD, x(tick), bottom, "grid"))
        marks.append(label(x(tick), bottom + 16, x.named(tick, 8), "label tick", "middle"))
    marks.append(line(x(0.0), _HEAD - 4, x(0.0), bottom + 4, "threshold"))
    for place, bar in enumerate(bars):
        y, one = _HEAD + (place + 0.5) * _ROW, bar.estimate
        told = f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
        marks.append(gutter.name(bar.name, y + 4))
        marks.append(line(x(100 * one.low), y, x(100 * one.high), y, "error"))
        if bar.clear:
            marks.append(dot(x(100 * one.value), y, 8, "ring"))
        marks.append(dot(x(100 * one.value), y, 4.5, "value", title=f"{bar.name}: {told}"))
        marks.append(label(WIDTH, y + 4, told, "label tick", "end"))
    return Chart(
        name=name,
        title=title,
        caption="Points of accuracy, with 95% intervals over seeds, base students and items; a ring where 0 is ruled "
        "out after Holm's correction.",
        height=bottom + _FOOT,
        marks=marks,
    )


def levels_chart(
    name: str, title: str, across: str, series: Mapping[str, Mapping[str, Estimate]], *, told_by: str = ""
) -> Chart:
    """Return a line a series over levels with their intervals: at their values where they are numbers.

    `across` names what the levels are of, `told_by` what tells the series apart.
    """
    levels = list(dict.fromkeys(level for one in series.values() for level in one))
    places = _places(levels)
    ends = [value for one in series.values() for found in one.values() for value in (found.low, found.high)]
    x = scale_over(list(places.values()), _LEFT, WIDTH - _LEFT - _RIGHT)
    y = scale_over(ends, _HEAD + _PLOT, -_PLOT)
    marks: list[Mark] = [rect(_LEFT, _HEAD, WIDTH - _LEFT - _RIGHT, 0, "base")]
    for tick in y.ticks(6):
        marks.append(line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"))
        marks.append(label(_LEFT - 8, y(tick) + 4, y.named(tick, 6), "label tick", "end"))
    room = (WIDTH - _LEFT - _RIGHT) / max(len(levels), 1)
    for level in levels:
        text = fitted(level, room)
        marks.append(label(x(places[level]), y.start + 18, text, "label tick", "middle", title=level))
    marks.append(label(WIDTH - _RIGHT, y.start + 34, across, "label tick", "end"))
    axes = _Axes(levels={level: x(value) for level, value in places.items()}, accuracy=y)
    for place, (series_name, one) in enumerate(series.items()):
        marks += _series(series_name, one, axes, place)
    keys = [Key(style=f"series-{place % _SERIES}", name=series_name) for place, series_name in enumerate(series)]
    return Chart(
        name=name,
        title=title,
        caption="Held-out accuracy, with 95% intervals over seeds, base students and items.",
        height=y.start + _FOOT,
        marks=marks,
        legends=[Legend(title=told_by, keys=keys)],
    )


def _places(levels: Sequence[str]) -> dict[str, float]:
    """Return where levels stand: at their values, or side by side where these are no numbers or too uneven to tell."""
    side_by_side = {level: float(place) for place, level in enumerate(levels)}
    try:
        values = {level: float(level) for level in levels}
    except ValueError:
        return side_by_side
    gaps = [abs(two - one) for one, two in pairwise(values.values())]
    return side_by_side if gaps and max(gaps) > _UNEVEN * min(gaps) else values


@dataclass(frozen=True, kw_only=True)
class _Axes:
    """The pixels of levels and of accuracy."""

    levels: Mapping[str, float]
    accuracy: Scale


def _series(name: str, one: Mapping[str, Estimate], axes: _Axes, number: int) -> list[Mark]:
    style, y = f"series-{number % _SERIES}", axes.accuracy
    shift = 3.0 * (number % _SERIES)  # intervals of several series at one level stay apart
    points = [Point(x=axes.levels[level] + shift, y=y(found.value)) for level, found in one.items()]
    marks: list[Mark] = [path(points, f"curve {style}", title=name)] if len(points) > 1 else []
    for point, (level, found) in zip(points, one.items(), strict=True):
        ends = [Point(x=point.x, y=y(found.low)), Point(x=point.x, y=y(found.high))]
        marks.append(path(ends, f"curve {style}"))
        told = f"{name}, {level}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
        marks.append(dot(point.x, point.y, 3.5, style, title=told))
    return marks
