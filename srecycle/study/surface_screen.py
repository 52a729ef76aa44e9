"""The surface as a table on the screen."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srecycle.study.sweep import Axis

_MOST_LINES = 60
_WIDTH_WHERE_PIPED = 200
_OUTCOMES = {"both": "both", "instruction": "instruction", "response": "response", "original": "neither"}
"""What a kind of version is called as an outcome of the two phases."""

Value = int | float | str | None


def show_surface(axes: Sequence[Axis], lines: Sequence[Mapping[str, Value]], overlap: npt.NDArray[np.float64]) -> None:
    """Print one line a setting, and what refused how many."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHERE_PIPED)
    console.print(_settings(axes, lines, overlap))
    console.print(_refusals(axes, lines))
    if len(lines) > _MOST_LINES:
        console.print(f"and {len(lines) - _MOST_LINES} more settings: --out FOLDER writes them all")


def _settings(axes: Sequence[Axis], lines: Sequence[Mapping[str, Value]], overlap: npt.NDArray[np.float64]) -> Table:
    table = Table(
        title=f"{lines[0]['rows']:,} rows. Taken: outcomes of the two phases before the keep filters. "
        "Overlap: Jaccard index of what is kept with the first setting's.",
        title_justify="left",
        box=box.SIMPLE,
        pad_edge=False,
    )
    _add_axes(table, axes)
    scores = ("IFD mean", "median", "r-IFD mean", "median")
    for name in ("kept", "share", "acc. ins.", "acc. res.", *_OUTCOMES.values(), *scores, "overlap"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, line in enumerate(lines[:_MOST_LINES]):
        table.add_row(
            *_axes(place, axes, line),
            f"{line['kept']:,}",
            *(_number(line[name]) for name in ("kept_share", "acceptance/instruction", "acceptance/response")),
            *(f"{line[f'taken/{kind}']:,}" for kind in _OUTCOMES),
            *(_number(line[f"kept/{score}/{one}"]) for score in ("ifd", "r_ifd") for one in ("mean", "median")),
            _number(float(overlap[0, place])),
        )
    return table


def _refusals(axes: Sequence[Axis], lines: Sequence[Mapping[str, Value]]) -> Table:
    names = [name for name in lines[0] if name.startswith("refused/")]
    table = Table(
        title="Refused, by the first filter that refuses", title_justify="left", box=box.SIMPLE, pad_edge=False
    )
    _add_axes(table, axes)
    for name in names:
        table.add_column(name.removeprefix("refused/"), justify="right")
    for place, line in enumerate(lines[:_MOST_LINES]):
        table.add_row(*_axes(place, axes, line), *(f"{line[name]:,}" for name in names))
    return table


def _add_axes(table: Table, axes: Sequence[Axis]) -> None:
    table.add_column("#", justify="right")
    for axis in axes:
        table.add_column(escape(axis.name), justify="right", overflow="fold")


def _axes(place: int, axes: Sequence[Axis], line: Mapping[str, Value]) -> list[str]:
    return [
        str(place + 1),
        *(escape(f"{value:g}" if isinstance(value := line[axis.name], float) else str(value)) for axis in axes),
    ]


def _number(value: Value) -> str:
    return "-" if not isinstance(value, int | float) or math.isnan(value) else f"{value:.3f}"
