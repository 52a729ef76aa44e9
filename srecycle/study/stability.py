"""Does the selection hold? The same rows selected again in another template, precision or seed, and resampled.

    srecycle-study stability student.dtype=float32,bfloat16 --out FOLDER
    srecycle-study stability +template@scoring_template=alpaca,vicuna --bootstrap 200

takes the overrides of `srecycle`; those with several values span the settings, of which the first is held against all
others. Each runs as far as its training set, and what the store has is not made again. Of a setting: the Jaccard index
of the rows kept, and of the (row, version) pairs; the share of rows that each phase decides otherwise; Spearman's rank
correlation of the versions' IFD and r-IFD. flips.csv names every row that is decided otherwise, with both margins.

--bootstrap resamples the rows with replacement so many times: 95% intervals of these figures, and of the share kept.
Filters that compare rows (a top fraction, clusters) are taken as they decided on the whole set.
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
from srecycle.rows import PHASES, Phase, own_rows
from srecycle.study.made import Done, made, require_all
from srecycle.study.screen import number, show_table
from srecycle.study.sweep import Axis, Setting, sweep

Line = dict[str, Any]
SCORED = ("ifd", "r_ifd")
FIGURES: Mapping[str, str] = {
    "kept": "kept",
    "kept_share": "share",
    "jaccard_rows": "Jaccard, rows",
    "jaccard": "Jaccard, pairs",
    "flipped/instruction": "flipped, instruction",
    "flipped/response": "flipped, response",
    "spearman/ifd": "rank corr. IFD",
    "spearman/r_ifd": "rank corr. r-IFD",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument(
        "overrides", metavar="OVERRIDE", nargs="*", help="as for srecycle; several values span settings"
    )
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="resamples for intervals (default none)")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    parser.add_argument("--group", default="stability", help="the runs' group")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write tables")


def run(options: argparse.Namespace) -> None:
    """Run the settings, hold them against the first, and write what was found where asked."""
    asked = sweep(options.overrides, anything=True)
    if options.bootstrap < 0:
        raise UserError(f"--bootstrap {options.bootstrap} is no number of resamples: give 0 for none, or some hundreds")
    if len(asked.settings) < 2 and not options.bootstrap:
        raise UserError("one setting alone can't be compared: give an override several values, or --bootstrap N")
    _require_same_rows(asked.settings)
    done, failed = made(asked.settings, options.group)
    read = [selection(one) for one in done]
    lines = [
        {**{axis.name: one.done.setting.values[axis.name] for axis in asked.axes}, **compared(read[0], one)}
        for one in read
    ]
    for line, one in zip(lines, read, strict=True):
        line |= intervals(read[0], one, options.bootstrap, options.seed)
    show(asked.axes, lines)
    if options.out is not None:
        folder = options.out.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        pyarrow.csv.write_csv(pa.Table.from_pylist(lines), folder / "stability.csv")
        changed = [flip for one in read[1:] for flip in flips(read[0], one)]
        pyarrow.csv.write_csv(pa.Table.from_pylist(changed, schema=_FLIPS), folder / "flips.csv")
    require_all(failed, asked.settings)


class Selection:
    """What one setting took and kept, row by row in the order of ids, and its scores by (row, version)."""

    def __init__(self, done: Done, tables: Mapping[str, pa.Table], scores: pa.Table | None) -> None:
        self.done = done
        order = {name: table.sort_by("id") for name, table in tables.items()}
        training = order["training"]
        self.ids = training["id"].to_pylist()
        self.kept: npt.NDArray[np.bool_] = training["kept"].to_numpy(zero_copy_only=False)
        self.version = np.array(training["version"].to_pylist(), dtype=object)
        self.decisions = {phase: order[phase] for phase in PHASES}
        # After other instructions the names differ in any case: a phase decides whether the challenger is taken.
        self.taken: dict[Phase, npt.NDArray[np.bool_]] = {
            phase: pc.not_equal(table["chosen"], table["incumbent"]).to_numpy(zero_copy_only=False)
            for phase, table in self.decisions.items()
        }
        self.scores = scores


def selection(done: Done) -> Selection:
    """Read what a run took and kept; rows that were mixed in are nobody's choice, and left out."""
    training = own_rows(done.table("assemble", "training"))
    tables = {phase: done.table(f"select_{phase}", "decisions") for phase in PHASES} | {"training": training}
    return Selection(done, tables, done.table("scores", "scores") if done.run.artifact("scores") else None)


def compared(first: Selection, other: Selection) -> Line:
    """Return the figures of a setting beside the first's; None where a figure has no meaning."""
    everything = np.arange(len(first.ids))
    return {
        "kept": int(other.kept.sum()),
        **_overlap(first, other, everything),
        **{f"spearman/{name}": _rank_correlation(first.scores, other.scores, name) for name in SCORED},
    }


def intervals(first: Selection, other: Selection, resamples: int, seed: int) -> Line:
    """Return the 95% interval of each figure over resampled rows, as NAME/low and NAME/high."""
    if not resamples:
        return {}
    generator = np.random.default_rng(seed)
    size = len(first.ids)
    drawn = [_overlap(first, other, generator.integers(0, size, size)) for _ in range(resamples)]
    found: Line = {}
    for name in drawn[0]:
        values = np.array([np.nan if one[name] is None else one[name] for one in drawn], dtype=np.float64)
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, (0.025, 0.975)).tolist() if len(known) else (None, None)
        found |= {f"{name}/low": low, f"{name}/high": high}
    return found


def _overlap(first: Selection, other: Selection, rows: npt.NDArray[np.int64]) -> Line:
    a, b, same = first.kept[rows], other.kept[rows], (first.version == other.version)[rows]
    either, both = int((a | b).sum()), a & b
    # A row that both keep in different versions is one pair of each.
    pairs = int((both & same).sum())
    figures: Line = {
        "kept_share": float(b.mean()),
        "jaccard_rows": int(both.sum()) / either if either else None,
        "jaccard": pairs / (int(a.sum()) + int(b.sum()) - pairs) if either else None,
    }
    for phase in PHASES:
        figures[f"flipped/{phase}"] = float((first.taken[phase] != other.taken[phase])[rows].mean())
    return figures


_FLIPS = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("id", "phase", "setting", "first_chosen", "chosen", "first_reason", "reason")
        ),
        ("first_margin", pa.float64()),
        ("margin", pa.float64()),
    ]
)


def flips(first: Selection, other: Selection) -> list[Line]:
    """Return every decision that differs from the first setting's."""
    found = []
    for phase in PHASES:
        differ = pa.array(first.taken[phase] != other.taken[phase])
        before, after = (one.decisions[phase].filter(differ).to_pylist() for one in (first, other))
        found += [
            {
                "id": one["id"],
                "phase": phase,
                "setting": other.done.run.name,
                "first_chosen": one["chosen"],
                "chosen": two["chosen"],
                "first_margin": one["margin"],
                "margin": two["margin"],
                "first_reason": one["reason"],
                "reason": two["reason"],
            }
            for one, two in zip(before, after, strict=True)
        ]
    return found


def _rank_correlation(first: pa.Table | None, other: pa.Table | None, name: str) -> float | None:
    """Return Spearman's correlation over the versions that both scored."""
    if first is None or other is None:
        return None
    keys = ["id", "version"]
    joined = first.select([*keys, name]).join(other.select([*keys, name]), keys, right_suffix="_other").drop_null()
    a, b = joined[name].to_numpy(), joined[f"{name}_other"].to_numpy()
    if len(a) < 2 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    from scipy.stats import spearmanr  # takes its time to import

    return float(spearmanr(a, b).statistic)


def _require_same_rows(settings: Sequence[Setting]) -> None:
    """Refuse, before anything is paid for, settings that select from different rows."""
    sources = {one.experiment.plan()["source"].key for one in settings}
    if len(sources) > 1:
        raise UserError(
            "these settings select from different rows: a seed that draws the data (data.seed, or seed where data "
            "takes it) can't vary here; vary teacher.seed, or a selector's"
        )


def show(axes: Sequence[Axis], lines: Sequence[Line]) -> None:
    """Print the settings, the first one above those that are held against it."""
    names = [axis.name for axis in axes]

    def cell(line: Line, name: str) -> str:
        low, high = line.get(f"{name}/low"), line.get(f"{name}/high")
        return number(line[name]) + (f" [{number(low)}, {number(high)}]" if low is not None else "")

    rows = [[*(str(line[name]) for name in names), *(cell(line, name) for name in FIGURES)] for line in lines]
    show_table("Beside the first setting", [*names, *FIGURES.values()], rows)
