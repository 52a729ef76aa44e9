"""The selection replayed on statistics in the shape of those that the authors published.

    srecycle-study released FOLDER_OR_FILES [--set NAME] [--out FOLDER]

reads the four tables origin, reflect_instruction, reflect_response and reflect_both, and selects twice:

- as the paper words it (arXiv:2402.10110, section 3), by the same functions as an experiment: a missing or failed score
  decides nothing, and a row without its scores is not kept;
- as the authors' released script computes it, where a failed scoring is the number 0, which passes every "< 1".

Counts are compared with those of the published sets. A difference is a finding, not an error: it may come from the
statistics (another student's, another version) as well as from the selection.

--out writes released.json (the counts) and released.parquet (a line a row: what each reading takes and keeps).
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from srecycle.assemble.stage import chosen_of
from srecycle.errors import UserError
from srecycle.keep import filtered
from srecycle.keep.limit import IFDMax, ReversedIFDMax
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.progress import say
from srecycle.rows import KINDS, OK
from srecycle.selector.decide import decide
from srecycle.selector.grid import VersionGrid
from srecycle.selector.ifd import IFD
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.store import write_table
from srecycle.study.statistics import X_GIVEN_Y, Y_GIVEN_X, Statistics, Values, X, Y, read_statistics

NOTHING = -1
"""Where a reading takes no version of a row at all."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One of the authors' selected sets: how many rows it was chosen from, and how many it has.

    The counts are those of the sets on huggingface.co/umd-zhou-lab.
    """

    title: str
    rows: int
    kept: int


PUBLISHED: Mapping[str, Published] = {
    "alpaca_7b": Published(title="sRecycled Alpaca 7B", rows=52_002, kept=37_114),
    "wizardlm_7b": Published(title="sRecycled WizardLM 7B", rows=70_000, kept=46_325),
    "wizardlm_13b": Published(title="sRecycled WizardLM 13B", rows=70_000, kept=46_064),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One reading's selection; arrays of shape [rows].

    `taken` is the number of the version in `KINDS`, or `NOTHING`; `reason` says why a row is not kept, "" where it is.
    """

    name: str
    taken: npt.NDArray[np.int64]
    reason: npt.NDArray[Any]

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which rows are kept."""
        kept: npt.NDArray[np.bool_] = self.reason == ""
        return kept

    def counts(self) -> dict[str, int]:
        """Return counts by name: `taken/...`, `kept/...`, `kept`, `refused/...`."""
        found = {f"taken/{kind}": int((self.taken == number).sum()) for number, kind in enumerate(KINDS)}
        for number, kind in enumerate(KINDS):
            found[f"kept/{kind}"] = int((self.kept & (self.taken == number)).sum())
        found["kept"] = int(self.kept.sum())
        reasons, numbers = np.unique(self.reason[~self.kept].astype(str), return_counts=True)
        return found | {f"refused/{one}": int(count) for one, count in zip(reasons, numbers, strict=True)}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument("statistics", metavar="PATH", nargs="+", help="a folder, a hub id, or the four files")
    parser.add_argument("--set", choices=list(PUBLISHED), help="the published set to compare with (default: by size)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write counts and decisions")


def run(options: argparse.Namespace) -> None:
    """Read, select in both readings, print, and write where asked."""
    statistics = read_statistics(options.statistics)
    readings = [paper_reading(statistics), released_reading(statistics)]
    named = options.set or " ".join(options.statistics)
    findings = compared(statistics, readings, published_for(named, len(statistics.ppl)))
    console = Console(highlight=False)
    console.print(_table(statistics, readings))
    for finding in findings:
        console.print(f"- {finding}", markup=False, soft_wrap=True)
    if options.out is not None:
        _write(options.out.expanduser(), statistics, readings, findings)


def paper_reading(statistics: Statistics) -> Reading:
    """Select as the paper words it: higher IFD, then lower r-IFD, then both below 1 and the response reflected.

    Scores are ratios of the published perplexities themselves, not of losses, so that no rounding decides a row.
    """
    ppl = np.where(statistics.ppl > 0, statistics.ppl, np.nan)
    with np.errstate(all="ignore"):
        ratios = {"ifd": ppl[:, :, Y_GIVEN_X] / ppl[:, :, Y], "r_ifd": ppl[:, :, X_GIVEN_Y] / ppl[:, :, X]}
    scores = {name: np.where(np.isfinite(values), values, np.nan) for name, values in ratios.items()}
    rows = len(ppl)
    status = np.where(statistics.there, np.where(statistics.failed, "failed", OK), "no_statistics").astype(object)
    grid = VersionGrid(
        table=pa.table({}),
        samples=1,
        versions=KINDS,
        ids=np.array([str(row) for row in range(rows)], dtype=object),
        line=np.full(status.shape, -1, dtype=np.int64),
        status=np.full(status.shape, OK, dtype=object),
        score_status=status,
        columns=scores,
    )
    first = decide(grid, "instruction", IFD(), np.zeros(rows, dtype=np.int64))
    second = decide(grid, "response", ReversedIFD(), first.chosen)
    keep = {"ifd_max": IFDMax(), "rifd_max": ReversedIFDMax(), "response_reflected_only": ResponseReflectedOnly()}
    kept = filtered(keep, chosen_of(grid, second.chosen, set(), []))
    return Reading(name="the paper", taken=second.chosen, reason=kept.reason)


def released_reading(statistics: Statistics) -> Reading:
    """Select as the authors' released script does. Its steps, row by row:

    1. IFD = ppl(y|x) / ppl(y), r-IFD = ppl(x|y') / ppl(x). A zero denominator, of the perplexities or of the losses
       whose ratio stands beside them, sets that score to 0; a failed numerator is 0 already.
    2. The new instruction is taken if its IFD is strictly higher than the original's.
    3. The reflected response to what was taken in step 2 is taken if its r-IFD is strictly lower.
    4. What was taken counts if its own IFD and r-IFD are strictly below 1. Otherwise the row is dropped: the script
       does not fall back on another version of it. A score of 0 passes.
    5. Of what counts, only reflected responses are written.

    What the script does with a row of which a version has no statistics is not known: it is left out, and counted.
    """
    ifd = _released_score(statistics, Y_GIVEN_X, Y)
    r_ifd = _released_score(statistics, X_GIVEN_Y, X)
    original, instruction, response, both = range(len(KINDS))
    new_question = ifd[:, instruction] > ifd[:, original]
    with_new = np.where(r_ifd[:, both] < r_ifd[:, instruction], both, instruction)
    with_old = np.where(r_ifd[:, response] < r_ifd[:, original], response, original)
    taken = np.where(new_question, with_new, with_old)
    own = np.take_along_axis(ifd, taken[:, None], axis=1)[:, 0], np.take_along_axis(r_ifd, taken[:, None], axis=1)[:, 0]
    passes, reflected = (own[0] < 1) & (own[1] < 1), np.isin(taken, (response, both))
    known = statistics.there.all(axis=1)
    reason = np.select([~known, ~passes, ~reflected], ["no_statistics", "not_below_1", "response_not_reflected"], "")
    return Reading(name="the release", taken=np.where(known, taken, NOTHING), reason=reason.astype(object))


def _released_score(statistics: Statistics, given: int, alone: int) -> Values:
    ppl, loss = statistics.ppl, statistics.loss
    zero = (ppl[:, :, alone] == 0) | (loss[:, :, alone] == 0)
    with np.errstate(all="ignore"):
        ratios = ppl[:, :, given] / ppl[:, :, alone]
    return np.where(zero, 0.0, ratios)


def published_for(named: str, rows: int) -> list[Published]:
    """Return the published sets to compare with: the one that is named, or those chosen from so many rows.

    Of two of the same size a path that says 7b or 13b chooses one.
    """
    if named in PUBLISHED:
        return [PUBLISHED[named]]
    fitting = {name: one for name, one in PUBLISHED.items() if one.rows == rows}
    sized = [one for name, one in fitting.items() if name.rpartition("_")[2] in named.lower()]
    return sized or list(fitting.values())


def compared(statistics: Statistics, readings: list[Reading], published: list[Published]) -> list[str]:
    """Return the findings in words."""
    paper, released = readings
    failed = statistics.failed
    zeros = int(failed.sum())
    by_failed = [
        int((reading.kept & np.take_along_axis(failed, reading.taken[:, None], axis=1)[:, 0]).sum())
        for reading in readings
    ]
    findings = [
        f"{zeros:,} of {statistics.there.sum():,} scored versions failed (a perplexity of 0), in "
        f"{failed.any(axis=1).sum():,} rows; {(~statistics.there).sum():,} versions have no statistics. The paper's "
        f"wording keeps {by_failed[0]:,} rows by a failed version, the release {by_failed[1]:,}.",
        f"Both readings take the same version of {(paper.taken == released.taken).sum():,} of {len(failed):,} rows; "
        f"{(paper.kept & ~released.kept).sum():,} rows are kept in the paper's wording only, "
        f"{(released.kept & ~paper.kept).sum():,} in the release's only.",
    ]
    for one in published:
        if one.rows != len(failed):
            findings.append(f"{one.title} was chosen from {one.rows:,} rows, these are {len(failed):,}.")
        told = [f"{reading.name} {_difference(int(reading.kept.sum()), one.kept)}" for reading in readings]
        findings.append(f"{one.title} has {one.kept:,} of {one.rows:,} rows: {', '.join(told)}.")
    if not published:
        findings.append(f"No published set was chosen from {len(failed):,} rows: name one with --set to compare.")
    return findings


def _difference(kept: int, published: int) -> str:
    if kept == published:
        return f"keeps {kept:,}, the same"
    return f"keeps {kept:,}, {abs(kept - published):,} {'more' if kept > published else 'fewer'}"


def _table(statistics: Statistics, readings: list[Reading]) -> Table:
    table = Table(title=f"{len(statistics.ppl):,} rows", title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("")
    for reading in readings:
        table.add_column(reading.name, justify="right")
    counts = [reading.counts() for reading in readings]
    for name in dict.fromkeys(name for one in counts for name in one):
        table.add_row(name.replace("/", " ").replace("_", " "), *(f"{one.get(name, 0):,}" for one in counts))
    return table


def _write(folder: Path, statistics: Statistics, readings: list[Reading], findings: list[str]) -> None:
    kinds = np.array([*KINDS, None], dtype=object)
    columns: dict[str, Any] = {"row": np.arange(len(statistics.ppl))}
    for name, reading in zip(("paper", "release"), readings, strict=True):
        columns |= {
            f"{name}_taken": kinds[reading.taken],
            f"{name}_kept": reading.kept,
            f"{name}_reason": reading.reason,
        }
    columns["failed"] = [[kind for kind, one in zip(KINDS, row, strict=True) if one] for row in statistics.failed]
    counts = {name: one.counts() for name, one in zip(("paper", "release"), readings, strict=True)}
    told = {"rows": len(statistics.ppl), **counts, "findings": findings}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "released.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        write_table(folder / "released.parquet", pa.table(columns))
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; give a folder that can be written") from error
    say(f"released: {folder / 'released.json'}, {folder / 'released.parquet'}")
