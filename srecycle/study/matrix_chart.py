"""The compatibility matrix as a figure: one small heat map a figure, students across, everything else down."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from srecycle.report.charts import Chart, Mark, Scale, fitted, label, rect
from srecycle.study.screen import number
from srecycle.study.sweep import Axis

PANELS: Mapping[str, str] = {
    "kept_share": "rows kept",
    "gain/ifd": "IFD gain of what was taken",
    "rank_surprisal": "rank-surprisal ratio of what was kept",
    "usd": "dollars",
}

_HEAD, _FOOT, _ROW, _LEFT, _CELL = 40.0, 44.0, 30.0, 200.0, 130.0


def matrix_chart(axes: Sequence[Axis], lines: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the figure of these pairs. A pair without a figure has an empty cell."""
    across = [axis.name for axis in axes if axis.name.partition(".")[0] == "student"]
    down = [axis.name for axis in axes if axis.name not in across]
    columns = list(dict.fromkeys(_named(one, across) for one in lines))
    rows = list(dict.fromkeys(_named(one, down) for one in lines))
    shown = {name: title for name, title in PANELS.items() if any(one[name] is not None for one in lines)}
    height = _HEAD + _ROW * len(rows) + _FOOT
    marks: list[Mark] = []
    for place, (name, title) in enumerate(shown.items()):
        top = place * height
        marks.append(label(0, top + 18, title, "label heading"))
        known = [float(one[name]) for one in lines if one[name] is not None]
        scale = Scale(low=min(known), high=max(*known, min(known) + 1e-9), start=0.08, length=0.92)
        for one in lines:
            x = _LEFT + columns.index(_named(one, across)) * _CELL
            y = top + _HEAD + rows.index(_named(one, down)) * _ROW
            marks += _cell(x, y, one[name], scale, f"{_named(one, down)}, {_named(one, across)}")
        for row, text in enumerate(rows):
            at = top + _HEAD + (row + 0.6) * _ROW
            marks.append(label(_LEFT - 10, at, fitted(text, _LEFT - 12), "tick", "end", title=text))
        for column, text in enumerate(columns):
            at = _LEFT + (column + 0.5) * _CELL
            marks.append(label(at, top + height - _FOOT + 16, fitted(text, _CELL), "tick", "middle", title=text))
    return Chart(
        name="matrix",
        title="Teachers and students: a pilot",
        caption=f"{lines[0]['rows']:,} rows each; the darker, the more. A lower rank-surprisal ratio predicts more.",
        height=height * len(shown),
        marks=marks,
    )


def _cell(x: float, y: float, value: float | None, scale: Scale, name: str) -> list[Mark]:
    told = f"{name}: {number(value)}"
    depth = 0.0 if value is None else round(scale(float(value)), 3)
    cell = rect(x, y, _CELL, _ROW, "cell", title=told)
    style = "label on-cell" if depth > 0.5 else "label"
    return [
        replace(cell, geometry={**cell.geometry, "fill-opacity": depth}),
        label(x + _CELL / 2, y + _ROW / 2 + 4, number(value), style, "middle", title=told),
    ]


def _named(one: Mapping[str, Any], axes: Sequence[str]) -> str:
    return ", ".join(str(one[name]) for name in axes) or "all"
