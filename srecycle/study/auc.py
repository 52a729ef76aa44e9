"""Which score sees which fault: the AUC of every score for telling faulty pairs of the micro-world from sound ones.

The AUC is the chance that a faulty pair looks worse by a score than a sound one, ties counting half: 1 where the score
sees the fault, 0.5 where it is blind to it, below that where it takes the fault for a virtue. Worse is higher for the
scores of difficulty, surprise and feasibility (IFD and its relatives, perplexity), lower for confidence; GRAPE orders
pairs as perplexity does.
Pairs are compared within their kind: the worked answers of the response phase, and the originals. Pairs without the
score are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from srecycle.report.tables import floats
from srecycle.rows import OK, kind_of
from srecycle.verifier.faults import SOUND, fault

JUDGED: Final[Mapping[str, int]] = {
    "ifd": 1,
    "r_ifd": 1,
    "perplexity": 1,
    "s_ifd": 1,
    "rank_surprisal": 1,
    "confidence": -1,
}
"""The scores, and 1 where higher is worse."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"rewrites": ("response", "both"), "originals": ("original",)}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """How well a score sees a fault: the AUC, and how many faulty and sound pairs it compares."""

    auc: float
    faulty: int
    sound: int


def aucs(scored: pa.Table, group: str) -> dict[tuple[str, str], Seen]:
    """Return what each score sees of each fault, by (score, fault), in a group of versions of a table of scores."""
    kinds = GROUPS[group]
    lines = scored.filter(pa.array([kind_of(version) in kinds for version in scored["version"].to_pylist()]))
    lines = lines.filter(pa.array([status == OK for status in lines["status"].to_pylist()], type=pa.bool_()))
    pairs = zip(lines["instruction"].to_pylist(), lines["response"].to_pylist(), strict=True)
    faults = np.array([fault(instruction, response) for instruction, response in pairs], dtype=object)
    found: dict[tuple[str, str], Seen] = {}
    for score, sign in JUDGED.items():
        values = sign * floats(lines[score])
        for name in sorted(set(faults.tolist()) - {SOUND}):
            bad, good = (values[(faults == one) & ~np.isnan(values)] for one in (name, SOUND))
            if len(bad) and len(good):
                found[score, name] = Seen(auc=auc(bad, good), faulty=len(bad), sound=len(good))
    return found


def auc(worse: npt.NDArray[np.float64], better: npt.NDArray[np.float64]) -> float:
    """Return the share of pairs of values in which the first is higher than the second; equal ones count half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([worse, better]))
    above = ranks[: len(worse)].sum() - len(worse) * (len(worse) + 1) / 2
    return float(above / (len(worse) * len(better)))
