"""AlpacaEval's annotations: how each was preferred to the reference, and the leaderboard's figures. Pure but for files.

An annotation shows two outputs for an instruction, the reference (output_1) and the one that is measured (output_2),
and a preference from 1 (the reference) to 2 (the measured one); 1.5 is a draw, and so is 0 in older files. Then, as the
leaderboard of github.com/tatsu-lab/alpaca_eval computes them (table 1 of arXiv:2402.10110), over the n that have one:

    win rate = 100 * mean(preference - 1)              standard error = 100 * std(preference, ddof=1) / sqrt(n)

There are two versions, which differ in the reference and in the judge. Their figures are not comparable: metrics name
the version, and a file of one is refused as the other's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from srecycle.data.files import records, text
from srecycle.errors import UserError
from srecycle.judge.counts import counted
from srecycle.rows import OK
from srecycle.stage import Metrics

Version = Literal[1, 2]

REFERENCE: Final[Mapping[Version, str]] = {1: "text_davinci_003", 2: "gpt4_1106_preview"}
"""Whose outputs each version compares with."""

_ANNOTATOR: Final[Mapping[Version, str]] = {1: "alpaca_eval_gpt4", 2: "weighted_alpaca_eval_gpt4_turbo"}

DRAW: Final = 1.5
NOT_ANNOTATED: Final = "not_annotated"


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One preference, by AlpacaEval's names. `status` is "ok", or why there is none; `category` a column's, or ""."""

    instruction: str
    output_1: str
    output_2: str
    generator_1: str
    generator_2: str
    annotator: str
    preference: float | None
    status: str = OK
    category: str = ""

    @property
    def line(self) -> dict[str, Any]:
        """Return it as AlpacaEval's files have it, the status beside it."""
        return {name: value for name, value in vars(self).items() if name != "category" or value}


def read_annotations(path: Path, setting: str | None = None) -> list[Annotation]:
    """Return a file's annotations, in order; `setting` named it.

    Raises UserError where it can't be read or holds other records.
    """
    found = []
    for number, record in enumerate(records(path, setting)):
        place = f"{path}: record {number}"
        if "preference" not in record:
            raise UserError(f"{place} has no 'preference': expected AlpacaEval's annotations")
        preference, status = _preference(record["preference"])
        found.append(
            Annotation(
                **{name: text(record, name, place) for name in ("instruction", "output_1", "output_2")},
                **{name: text(record, name, place, "") for name in ("generator_1", "generator_2", "annotator")},
                preference=preference,
                status=status,
            )
        )
    if not found:
        raise UserError(f"{path} holds no annotations")
    for column in ("generator_1", "generator_2"):
        if len(names := sorted({getattr(one, column) for one in found})) > 1:
            raise UserError(f"{path} has several models in {column!r} ({', '.join(names[:3])}): give one pair's file")
    return found


def _preference(value: Any) -> tuple[float | None, str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None, NOT_ANNOTATED
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, "unparsed"
    if value == 0:
        return DRAW, OK
    return (float(value), OK) if 1 <= value <= 2 else (None, "out_of_range")


def versions(generators: Sequence[str], annotators: Sequence[str] = ()) -> set[Version]:
    """Return the versions that these references and annotators are known to belong to: none of them may be known."""
    seen = {name.replace("-", "_").lower() for name in (*generators, *annotators)}
    known: tuple[Version, ...] = (1, 2)
    return {version for version in known if seen & {REFERENCE[version], _ANNOTATOR[version]}}


def versions_of(annotations: Sequence[Annotation]) -> set[Version]:
    """Return the versions that annotations are known to belong to."""
    return versions(
        sorted({one.generator_1 for one in annotations}), sorted({one.annotator for one in annotations} - {""})
    )


def require_version(wanted: Version, found: set[Version], what: str) -> None:
    """Raise UserError where something belongs to another version than the wanted one."""
    if others := found - {wanted}:
        (other,) = others
        raise UserError(
            f"{what} belongs to AlpacaEval {other} (reference {REFERENCE[other]}), and version={wanted} was asked for: "
            "the two are not comparable, give files of one version"
        )


def figures(annotations: Sequence[Annotation]) -> Metrics:
    """Return the leaderboard's figures of one model: counts always, rates only where something was judged.

    `asked` annotations, of which `judged` have a preference, and `unjudged/REASON` have none. `win_rate` and its
    standard error `win_rate_stderr` are in percent. `avg_length` is the mean number of characters of all outputs that
    there are, cut to an integer, as on the leaderboard.
    """
    scores = np.array([one.preference for one in annotations if one.preference is not None], dtype=np.float64) - 1
    metrics = counted(one.status for one in annotations) | {
        "wins": int((scores > 0.5).sum()),
        "draws": int((scores == 0.5).sum()),
        "losses": int((scores < 0.5).sum()),
    }
    if len(scores):
        metrics["win_rate"] = float(100 * scores.mean())
    if len(scores) > 1:
        metrics["win_rate_stderr"] = float(100 * scores.std(ddof=1) / math.sqrt(len(scores)))
    lengths = [len(one.output_2) for one in annotations if one.output_2 or one.preference is not None]
    return metrics | ({"avg_length": int(np.mean(lengths))} if lengths else {})
