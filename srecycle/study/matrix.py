"""Which teacher suits which student: every pair on a pilot of rows, before the whole set is paid for.

    srecycle-study matrix teacher=NAME,NAME student=NAME,NAME --rows 200 --out FOLDER

takes the overrides of `srecycle`; any that has several values is an axis (two columns of a matrix, or more). Each pair
reflects, scores and selects on the same `--rows` random rows, as a run of its own; nothing is trained. Figures of a
pair: the share of rewrites that the student took (of either phase), the share of rows kept, how much the taken pairs'
IFD and r-IFD are above their originals' (medians over rows), the rank-surprisal ratio of the kept pairs (median), and
what the replies cost.

The predicted ranking orders pairs of one student by that ratio, lowest first (arXiv:2601.14249 finds that teachers'
data with a lower ratio teach a student better). It is a prediction, to be held against a training: on the micro-world
it orders five teachers the wrong way round, and a lower gain in r-IFD orders them right (experiments/strength).
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from srecycle.errors import UserError
from srecycle.report.drawing import svg
from srecycle.rows import own_rows
from srecycle.store import write_table
from srecycle.study.made import Done, made, require_all
from srecycle.study.matrix_chart import matrix_chart
from srecycle.study.screen import number, show_table
from srecycle.study.sweep import Axis, sweep

Line = dict[str, Any]

FIGURES: Mapping[str, str] = {
    "acceptance/instruction": "taken, instruction phase",
    "acceptance/response": "taken, response phase",
    "kept_share": "kept",
    "gain/ifd": "IFD gain",
    "gain/r_ifd": "r-IFD gain",
    "rank_surprisal": "rank-surprisal",
    "usd": "$",
    "usd_per_kept": "$ per kept row",
    "predicted_rank": "predicted rank",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument(
        "overrides", metavar="OVERRIDE", nargs="*", help="as for srecycle; several values span the matrix"
    )
    parser.add_argument("--rows", type=int, default=200, metavar="N", help="rows of the pilot (default 200)")
    parser.add_argument("--group", default="matrix", help="the runs' group")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write tables and figure")


def run(options: argparse.Namespace) -> None:
    """Run the pairs, print the matrix, and write it where asked."""
    asked = sweep([*options.overrides, f"data.limit={options.rows}"], anything=True)
    if not all("scores" in one.experiment.plan() for one in asked.settings):
        raise UserError("with these selectors and filters nothing is scored: a matrix needs one that goes by a score")
    done, failed = made(asked.settings, options.group)
    lines = ranked([line(one, asked.axes) for one in done], asked.axes)
    names = [axis.name for axis in asked.axes]
    show_table(f"Pilot of {options.rows} rows", [*names, *FIGURES.values()], [_cells(one, names) for one in lines])
    if options.out is not None:
        folder = options.out.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist(lines)
        write_table(folder / "matrix.parquet", table)
        pyarrow.csv.write_csv(table, folder / "matrix.csv")
        (folder / "matrix.svg").write_text(svg(matrix_chart(asked.axes, lines)), encoding="utf-8")
    require_all(failed, asked.settings)


def line(done: Done, axes: Sequence[Axis]) -> Line:
    """Return the figures of a pair; None where it has none."""
    metrics = done.run.metrics
    scores, training = done.table("scores", "scores"), own_rows(done.table("assemble", "training"))
    kept = training.filter(training["kept"])
    usd = metrics.get("cost/usd")
    return {
        **{axis.name: done.setting.values[axis.name] for axis in axes},
        "rows": len(training),
        "acceptance/instruction": metrics.get("select_instruction/acceptance"),
        "acceptance/response": metrics.get("select_response/acceptance"),
        "kept": len(kept),
        "kept_share": len(kept) / len(training),
        **{f"gain/{name}": _gain(scores, training, name) for name in ("ifd", "r_ifd")},
        "rank_surprisal": _median(_of(scores, kept, "rank_surprisal")),
        "usd": usd,
        "usd_per_kept": usd / len(kept) if usd is not None and len(kept) else None,
    }


def ranked(lines: Sequence[Line], axes: Sequence[Axis]) -> list[Line]:
    """Add to each line its predicted place among those of the same student, 1 the best; None where it has no ratio."""
    others = [axis.name for axis in axes if axis.name.partition(".")[0] == "student"]
    ordered = []
    for one in lines:
        rivals = [rival for rival in lines if all(rival[name] == one[name] for name in others)]
        known = [rival["rank_surprisal"] for rival in rivals if rival["rank_surprisal"] is not None]
        value = one["rank_surprisal"]
        rank = None if value is None else 1 + sum(other < value for other in known)
        ordered.append({**one, "predicted_rank": rank})
    return ordered


def _gain(scores: pa.Table, training: pa.Table, name: str) -> float | None:
    """Return the median of a taken pair's score less that of its original, over the rows where another was taken."""
    changed = training.filter(pc.not_equal(training["version"], "original"))
    originals = changed.select(["id"]).append_column("version", pa.array(["original"] * len(changed), pa.string()))
    return _median(_of(scores, changed, name) - _of(scores, originals, name))


def _of(scores: pa.Table, wanted: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a score of these (row, version) pairs, NaN where there is none."""
    places = pc.index_in(_pairs(wanted), value_set=_pairs(scores))
    values: npt.NDArray[np.float64] = scores[name].take(places).to_numpy(zero_copy_only=False).astype(np.float64)
    return values


def _pairs(table: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(table["id"], table["version"], " ").combine_chunks()


def _median(values: npt.NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else None


def _cells(one: Line, names: Sequence[str]) -> list[str]:
    return [*(str(one[name]) for name in names), *(number(one[name]) for name in FIGURES)]
