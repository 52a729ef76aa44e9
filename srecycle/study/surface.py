"""The threshold surface: what every setting of selectors and keep filters would take and keep, from stored scores.

    srecycle-study surface keep.ifd_max.below=0.5,0.7,1.0 selector.instruction.margin=0,0.01 --out FOLDER

takes the overrides of `srecycle`; those with several values span the grid. Rows, reflections and likelihoods must be in
the store (`srecycle ... until=scores` makes them): nothing is asked of a teacher and no model is loaded. Decisions are
those that the stages would make, by the same functions. With reflection.scope=chosen the instruction phase decided
which responses there are, so only the response selector and the keep filters can vary.

--out writes surface.parquet and surface.csv (a line a setting), overlap.csv (a line a pair of settings), surface.svg.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from srecycle.assemble.stage import chosen_of
from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.keep import Chosen, Kept, filtered
from srecycle.keep.base import Told, told_by
from srecycle.progress import say
from srecycle.report.drawing import svg
from srecycle.rows import KINDS, Phase, kind_of
from srecycle.selector.decide import Decisions, decide
from srecycle.store import write_table
from srecycle.study.measured import Measured, measured
from srecycle.study.surface_chart import surface_chart
from srecycle.study.surface_screen import show_surface
from srecycle.study.sweep import Axis, Setting, Sweep, sweep

Line = dict[str, int | float | str | None]

NOT_KEPT = -1


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The settings side by side.

    `lines` has one mapping a setting: the axes' values, then figures under the names that the stages record them by
    (`kept`, `kept/both`, `refused/...`); None where there is no such figure. `overlap` [settings, settings] is the
    Jaccard index of the (row, version) pairs that two settings keep, NaN where neither keeps any, and `overlap_rows`
    the same of rows alone.
    """

    axes: Sequence[Axis]
    lines: Sequence[Line]
    overlap: npt.NDArray[np.float64]
    overlap_rows: npt.NDArray[np.float64]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument(
        "overrides", metavar="OVERRIDE", nargs="*", help="as for srecycle; several values span the grid"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write tables and figure")


def run(options: argparse.Namespace) -> None:
    """Compute the surface, print it, and write it where asked."""
    asked = sweep(options.overrides)
    _refuse_other_responses(asked)
    found = surface(asked.axes, asked.settings, measured(asked.settings))
    show_surface(found.axes, found.lines, found.overlap)
    if options.out is not None:
        write_surface(found, options.out.expanduser())


def surface(axes: Sequence[Axis], settings: Sequence[Setting], known: Measured) -> Surface:
    """Decide and filter once for each setting. Pure: reads no file."""
    kept = np.full((len(settings), len(known.grid.ids)), NOT_KEPT, dtype=np.int16)
    lines: list[Line] = [{} for _ in settings]
    for group in _same_decisions(list(enumerate(settings)), known):
        number = group.response.chosen
        taken = np.bincount(number, minlength=len(known.grid.versions))
        told: dict[str, Told] = {}
        for place, setting in group.settings:
            found = filtered(setting.experiment.keep, group.chosen, _asked_once(setting, group.chosen, told))
            kept[place] = np.where(found.number == 0, number, NOT_KEPT)
            values = {axis.name: _value(axis, setting.values[axis.name]) for axis in axes}
            lines[place] = {**values, **_figures(group, taken, found)}
    refused = sorted({name for line in lines for name in line if name.startswith("refused/")})
    return Surface(
        axes=axes,
        lines=[{**line, **{name: line.get(name, 0) for name in refused}} for line in lines],
        overlap=overlaps(kept, len(known.grid.versions)),
        overlap_rows=overlaps(np.where(kept == NOT_KEPT, NOT_KEPT, 0).astype(np.int16), 1),
    )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Settings whose selectors decide alike, with what they decide."""

    settings: Sequence[tuple[int, Setting]]
    instruction: Decisions
    response: Decisions
    chosen: Chosen


def _same_decisions(settings: Sequence[tuple[int, Setting]], known: Measured) -> Iterator[_Group]:
    start = np.zeros(len(known.grid.ids), dtype=np.int64)
    for some in _alike(settings, "instruction"):
        instruction = decide(known.grid, "instruction", some[0][1].experiment.selector["instruction"], start)
        for few in _alike(some, "response"):
            response = decide(known.grid, "response", few[0][1].experiment.selector["response"], instruction.chosen)
            needed = {name for _, one in few for keep in one.experiment.keep.values() for name in keep.needed}
            chosen = chosen_of(known.grid, response.chosen, needed, known.embeddings)
            yield _Group(settings=few, instruction=instruction, response=response, chosen=chosen)


def _alike(settings: Sequence[tuple[int, Setting]], phase: Phase) -> list[list[tuple[int, Setting]]]:
    """Return the settings by their selector of a phase."""
    named = [(fingerprint(identity(one.experiment.selector[phase])), (place, one)) for place, one in settings]
    ordered = sorted(named, key=lambda pair: (pair[0], pair[1][0]))
    return [[one for _, one in group] for _, group in groupby(ordered, key=lambda pair: pair[0])]


def _asked_once(setting: Setting, chosen: Chosen, told: dict[str, Told]) -> dict[str, Told]:
    """Return what the setting's filters that judge a row by itself say; `told` remembers it for the next setting."""
    known = {}
    for name, one in setting.experiment.keep.items():
        if not one.compares:
            named = fingerprint(identity(one))
            if named not in told:
                told[named] = told_by(one, chosen)
            known[name] = told[named]
    return known


def _figures(group: _Group, taken: npt.NDArray[np.int64], found: Kept) -> Line:
    stays = found.number == 0
    rows, versions = len(stays), group.response.grid.versions
    kept = np.bincount(group.response.chosen[stays], minlength=len(versions))
    figures: Line = {
        "rows": rows,
        "kept": int(kept.sum()),
        "kept_share": float(kept.sum() / rows),
        "acceptance/instruction": float(group.instruction.taken.mean()),
        "acceptance/response": float(group.response.taken.mean()),
    }
    for name, counts in (("taken", taken), ("kept", kept)):
        by_kind: Counter[str] = Counter()
        for version, count in zip(versions, counts.tolist(), strict=True):
            by_kind[kind_of(version)] += count
        figures |= {f"{name}/{kind}": by_kind[kind] for kind in KINDS}
    for name in ("ifd", "r_ifd"):
        values = group.chosen.columns[name][stays]
        values = values[~np.isnan(values)]
        figures[f"kept/{name}/mean"] = float(values.mean()) if len(values) else None
        figures[f"kept/{name}/median"] = float(np.median(values)) if len(values) else None
    return figures | {f"refused/{why}": count for why, count in found.refused.items()}


def overlaps(kept: npt.NDArray[np.int16], versions: int) -> npt.NDArray[np.float64]:
    """Return the Jaccard index of every two settings, shape [settings, settings]; NaN where both are empty.

    `kept` [settings, rows] holds the number of the version that is kept of a row, or `NOT_KEPT`.
    """
    shared = np.zeros((len(kept), len(kept)))
    for start in range(0, kept.shape[1], _ROWS_AT_ONCE):
        part = kept[:, start : start + _ROWS_AT_ONCE]
        for version in range(versions):
            marked = (part == version).astype(np.float32)
            shared += marked @ marked.T
    sizes = np.diag(shared)
    union = sizes[:, None] + sizes[None, :] - shared
    return np.divide(shared, union, out=np.full_like(shared, np.nan), where=union > 0)


_ROWS_AT_ONCE = 1 << 16
"""Counts in float32 are exact far beyond this, and a block of a hundred settings takes 26 MB."""


def write_surface(found: Surface, folder: Path) -> None:
    """Write tables and figure. Raises UserError where the folder can't be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([{"setting": place, **line} for place, line in enumerate(found.lines, 1)])
        write_table(folder / "surface.parquet", table)
        pyarrow.csv.write_csv(table, folder / "surface.csv")
        pyarrow.csv.write_csv(_pairs(found), folder / "overlap.csv")
        chart = surface_chart(found.axes, found.lines)
        if chart is not None:
            (folder / "surface.svg").write_text(svg(chart), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; give a folder that can be written") from error
    say(f"surface: {', '.join(sorted(str(file) for file in folder.iterdir() if file.stem in ('surface', 'overlap')))}")
    if chart is None:
        say("no figure: nothing varies; give an override several values")


def _pairs(found: Surface) -> pa.Table:
    first, second = np.triu_indices(len(found.lines), k=1)
    values = {
        "jaccard": found.overlap[first, second],
        "jaccard_rows": found.overlap_rows[first, second],
    }
    numbers = {"setting": first + 1, "other": second + 1}
    return pa.table(numbers | {name: pa.array(column, from_pandas=True) for name, column in values.items()})


def _value(axis: Axis, written: str) -> float | str:
    return written if axis.numbers is None else float(written)


def _refuse_other_responses(asked: Sweep) -> None:
    """Raise UserError where the instruction phase varies and decides which responses were made."""
    first = asked.settings[0].experiment
    others: set[Mapping[str, Any] | str] = {
        fingerprint(identity(one.experiment.selector["instruction"])) for one in asked.settings
    }
    if first.reflection.scope == "chosen" and len(others) > 1:
        raise UserError(
            "with reflection.scope=chosen the instruction selector decides which responses are made, so it can't vary "
            "here: vary selector.response and keep, or set reflection.scope=all"
        )
