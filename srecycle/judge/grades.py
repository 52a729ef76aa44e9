"""Grades of single answers, from 1 to 10, and their figures. Pure.

Means are over judgments; the standard error of a mean over several turns is that of the questions' own means, since the
turns of one question are not independent. A judgment without a grade is counted with its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from srecycle.judge.base import said
from srecycle.judge.counts import counted
from srecycle.judge.decorations import DECORATIONS, Probe, Side
from srecycle.judge.parsing import read_grade
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.teacher import Reply

REFERENCES: Final = ("ref_answer_1", "ref_answer_2")


@dataclass(frozen=True, kw_only=True)
class Grading:
    """One answer and its judgment. `turn` counts from 1; `status` is "ok", or why there is no answer or no grade.

    `texts` is what the judge is shown, by placeholder; `answer` names the one to be graded. `question` is all that was
    said before it.
    """

    id: str
    position: int
    turn: int
    category: str
    question: str
    texts: Mapping[str, str]
    answer: str
    status: str = OK
    grade: float | None = None
    reply: Reply | None = None

    @property
    def about(self) -> "Grading":
        """Return the question, which it knows itself."""
        return self

    @property
    def asked(self) -> bool:
        """Whether there is an answer, and nobody has graded it."""
        return self.status == OK and self.reply is None

    @property
    def verdict(self) -> float | None:
        """The grade."""
        return self.grade

    @property
    def reason(self) -> str:
        """Return "ok", or why there is no grade."""
        return self.status

    @property
    def beside_reference(self) -> bool:
        """Whether the judge is shown reference answers."""
        return not self.texts.keys().isdisjoint(REFERENCES)

    @property
    def text(self) -> str:
        """The answer that is graded."""
        return self.texts[self.answer]

    def favoured(self, probe: Probe) -> Side:
        """Return that the graded answer is the one to dress up: there is no other."""
        return "own"

    def dressed(self, probe: Probe, side: Side) -> "Grading":
        """Return it with the graded answer decorated, not judged yet."""
        texts = {**self.texts, self.answer: DECORATIONS[probe](self.text)}
        return replace(self, texts=texts, status=OK, grade=None, reply=None)

    def graded(self, reply: Reply) -> "Grading":
        """Return it with what a reply grades, or the reason why it doesn't."""
        if reply.status != OK:
            return replace(self, status=reply.status, reply=reply)
        scored = read_grade(reply.text, reply.finish_reason)
        return replace(self, status=scored.status, grade=scored.scores[0] if scored.scores else None, reply=reply)

    @property
    def line(self) -> dict[str, Any]:
        """Return its line of `judgments.parquet`: a recording that judge=replay reads."""
        names = ("id", "position", "turn", "category", "status", "grade", "question")
        about = {name: getattr(self, name) for name in names}
        return about | {"reference": self.beside_reference, "answer": self.text} | said(self.reply)


def figures(gradings: Sequence[Grading]) -> Metrics:
    """Return counts (`asked`, `judged`, `unjudged/REASON`), and `score` with `score_stderr` where there are grades."""
    metrics = counted(one.status for one in gradings)
    if grades := [one.grade for one in gradings if one.grade is not None]:
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
