"""The surface as a figure: the share of rows kept, as a curve over one swept limit or a heat map over two.

Pure: from lines to a chart. Further axes make further curves or panels.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from srecycle.report.charts import WIDTH, Chart, Mark, Point, Scale, dot, fitted, label, line, path, rect, scale_over
from srecycle.report.figures import SERIES
from srecycle.study.sweep import Axis

Line = Mapping[str, int | float | str | None]

_MOST_PANELS = 12
_HEAD, _FOOT, _ROW, _LEFT, _PLOT, _NAMES = 44.0, 52.0, 30.0, 225.0, 320.0, 360.0


def surface_chart(axes: Sequence[Axis], lines: Sequence[Line]) -> Chart | None:
    """Return the figure of these settings; None where nothing varies."""
    if not axes:
        return None
    numeric = [axis for axis in axes if axis.numbers is not None]
    if len(numeric) == 1:
        return _curves(numeric[0], [axis for axis in axes if axis is not numeric[0]], lines)
    across, *rest = (numeric or list(axes))[:2]
    drawn = [across, *rest]
    return _heat_maps(across, rest[0] if rest else None, [axis for axis in axes if axis not in drawn], lines)


def _curves(across: Axis, others: Sequence[Axis], lines: Sequence[Line]) -> Chart:
    shown = list(_combinations(others))
    parts = [sorted(_matching(lines, one), key=lambda each: _float(each[across.name])) for one in shown]
    names = _NAMES if others else 20.0
    x = scale_over([_float(one[across.name]) for one in lines], 60, WIDTH - 60 - names)
    y = replace(scale_over([_share(one) for one in lines], _HEAD + _PLOT, -_PLOT), start=_HEAD + _PLOT)
    marks = [label(0, 18, "share kept", "label heading")]
    for tick in y.ticks(6):
        marks.append(line(x.start, y(tick), x.start + x.length, y(tick), "grid"))
        marks.append(label(x.start - 8, y(tick) + 4, y.named(tick, 6), "label tick", "end"))
    for tick in x.ticks(8):
        marks.append(label(x(tick), y.start + 18, x.named(tick, 8), "label tick", "middle"))
    marks.append(label(x.start + x.length, y.start + 40, across.name, "label heading", "end"))
    for place, (values, part) in enumerate(zip(shown, parts, strict=True)):
        style, name = f"series-{place % SERIES}", _named(values)
        points = [Point(x=x(_float(one[across.name])), y=y(_share(one))) for one in part]
        marks.append(path(points, f"curve {style}", title=name))
        marks += [
            dot(point.x, point.y, 3, style, title=_told(one, across)) for point, one in zip(points, part, strict=True)
        ]
        if others:
            at = _HEAD + 20 * place
            marks.append(rect(WIDTH - names + 22, at - 9, 10, 10, style))
            marks.append(label(WIDTH - names + 38, at, fitted(name, names - 40), title=name))
    return Chart(
        name="surface",
        title=f"Share of rows kept, by {across.name}",
        caption=f"Of {lines[0]['rows']:,} rows, after both selectors and all keep filters.",
        height=max(_HEAD + _PLOT + _FOOT, _HEAD + 20 * len(shown)),
        marks=marks,
    )


def _heat_maps(across: Axis, down: Axis | None, others: Sequence[Axis], lines: Sequence[Line]) -> Chart:
    panels = list(_combinations(others))
    height = _HEAD + _ROW * (len(down.values) if down else 1) + _FOOT
    shares = [_share(one) for one in lines]
    scale = Scale(low=min(shares), high=max(*shares, min(shares) + 1e-9), start=0.06, length=0.94)
    marks: list[Mark] = []
    for place, values in enumerate(panels[:_MOST_PANELS]):
        marks += _heat_map(across, down, list(_matching(lines, values)), scale, place * height)
        marks.append(label(0, place * height + 18, _named(values), "label heading"))
    beyond = f" The first {_MOST_PANELS} of {len(panels)} panels." if len(panels) > _MOST_PANELS else ""
    return Chart(
        name="surface",
        title=f"Share of rows kept, by {across.name}" + (f" and {down.name}" if down else ""),
        caption=f"Of {lines[0]['rows']:,} rows, after both selectors and all keep filters. Darker is more.{beyond}",
        height=height * min(len(panels), _MOST_PANELS),
        marks=marks,
    )


def _heat_map(across: Axis, down: Axis | None, lines: Sequence[Line], scale: Scale, top: float) -> list[Mark]:
    columns = list(dict.fromkeys(one[across.name] for one in lines))
    rows: list[object] = list(dict.fromkeys(one[down.name] for one in lines)) if down else [None]
    width = min((WIDTH - _LEFT) / len(columns), 120.0)
    marks = []
    for one in lines:
        x = _LEFT + columns.index(one[across.name]) * width
        y = top + _HEAD + (rows.index(one[down.name]) if down else 0) * _ROW
        told = "; ".join(_told(one, axis) for axis in (across, down) if axis)
        depth = round(scale(_share(one)), 3)
        cell = rect(x, y, width, _ROW, "cell", title=told)
        marks.append(replace(cell, geometry={**cell.geometry, "fill-opacity": depth}))
        if width > 40:
            style = "label on-cell" if depth > 0.6 else "label"
            marks.append(label(x + width / 2, y + _ROW / 2 + 4, f"{_share(one):.1%}", style, "middle", title=told))
    bottom = top + _HEAD + _ROW * len(rows)
    for place, value in enumerate(columns):
        marks.append(
            label(_LEFT + (place + 0.5) * width, bottom + 16, fitted(_word(value), width), "label tick", "middle")
        )
    marks.append(label(_LEFT, bottom + 34, across.name, "label heading"))
    if down:
        for place, named in enumerate(rows):
            marks.append(label(_LEFT - 10, top + _HEAD + (place + 0.6) * _ROW, _word(named), "label tick", "end"))
        marks.append(label(_LEFT - 10, top + _HEAD - 8, fitted(down.name, _LEFT - 12), "label heading", "end"))
    return marks


def _combinations(axes: Sequence[Axis]) -> list[dict[str, float | str]]:
    """Return what the axes can be, as the lines write it."""
    choices = [[(axis.name, value) for value in axis.numbers or axis.values] for axis in axes]
    return [dict(one) for one in itertools.product(*choices)]


def _matching(lines: Sequence[Line], values: Mapping[str, float | str]) -> list[Line]:
    return [one for one in lines if all(one[name] == value for name, value in values.items())]


def _named(values: Mapping[str, float | str]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]}={_word(value)}" for name, value in values.items())


def _told(one: Line, axis: Axis) -> str:
    return f"{axis.name}={_word(one[axis.name])}: {one['kept']:,} kept ({_share(one):.1%})"


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _share(one: Line) -> float:
    return _float(one["kept_share"])


def _float(value: int | float | str | None) -> float:
    assert isinstance(value, int | float)
    return float(value)
