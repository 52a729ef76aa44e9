"""Selection by confidence: the version of whose final answer the student is surer wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class Confidence(ScoreSelector):
    """Prefers the version with the higher likelihood of its answer, the geometric mean over its tokens.

    What the answer is says `scorer.answer_pattern`; a version without one has no verdict.
    """

    needs: ClassVar[tuple[str, ...]] = ("confidence",)
    score: ClassVar[str | None] = "confidence"
    higher_wins: ClassVar[bool] = True
    unjudged: ClassVar[str] = "no_answer"
