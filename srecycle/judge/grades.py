"""Grades of single answers, from 1 to 10, and their figures. Pure.

Means are over judgments; the standard error of a mean over several turns is that of the questions' own means, since the
turns of one question are not independent. A judgment without a grade is counted with its reason.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from srecycle.judge.base import Case
from srecycle.judge.parsing import Scored, read_grade
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.teacher import Reply


@dataclass(frozen=True, kw_only=True)
class Grading:
    """One answer and its judgment. `turn` counts from 1. `case` is None where there is no answer: `status` says why.

    `question` is all that was said before the answer; `reference` says whether the judge was shown one.
    """

    id: str
    position: int
    turn: int
    category: str
    question: str
    answer: str
    reference: bool
    case: Case | None
    status: str = OK
    grade: float | None = None
    reply: Reply | None = None

    @property
    def line(self) -> dict[str, Any]:
        """Return its line of `judgments.parquet`: a recording that judge=replay reads."""
        names = ("id", "position", "turn", "category", "status", "grade", "reference", "question", "answer")
        reply = self.reply or Reply(text="", finish_reason="")
        said = {"reply": reply.text, "finish_reason": reply.finish_reason, "judge": reply.teacher}
        return {name: getattr(self, name) for name in names} | said


def read(reply: Reply) -> Scored:
    """Return what a reply grades, or the reason why it doesn't."""
    return read_grade(reply.text, reply.finish_reason) if reply.status == OK else Scored(status=reply.status)


def figures(gradings: Sequence[Grading]) -> Metrics:
    """Return counts (`asked`, `judged`, `unjudged/REASON`), and `score` with `score_stderr` where there are grades."""
    reasons = Counter(one.status for one in gradings if one.grade is None)
    grades = [one.grade for one in gradings if one.grade is not None]
    metrics: Metrics = {
        "asked": len(gradings),
        "judged": len(grades),
        **{f"unjudged/{reason}": count for reason, count in sorted(reasons.items())},
    }
    if grades:
        metrics["score"] = float(np.mean(grades))
    means = _by_question(gradings)
    if len(means) > 1:
        metrics["score_stderr"] = float(np.std(means, ddof=1) / np.sqrt(len(means)))
    return metrics


def _by_question(gradings: Sequence[Grading]) -> list[float]:
    found: dict[str, list[float]] = {}
    for one in gradings:
        if one.grade is not None:
            found.setdefault(one.id, []).append(one.grade)
    return [float(np.mean(grades)) for grades in found.values()]


def metrics_of(gradings: Sequence[Grading]) -> Metrics:
    """Return the figures of all judgments (`overall`), of each turn, and of each category."""
    groups: dict[str, list[Grading]] = {"overall": list(gradings)}
    for one in gradings:
        groups.setdefault(f"turn_{one.turn}", []).append(one)
    for one in sorted(gradings, key=lambda one: one.category):
        if one.category:
            groups.setdefault(f"category/{one.category}", []).append(one)
    found: Mapping[str, Metrics] = {name: figures(some) for name, some in groups.items()}
    return {f"{name}/{what}": value for name, some in found.items() for what, value in some.items()}
