"""Selection by perplexity (an arm of the paper's table 4): the version with the lower ppl(y|x) wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class Perplexity(ScoreSelector):
    """Prefers the version whose response the student finds likeliest after its instruction."""

    needs: ClassVar[tuple[str, ...]] = ("perplexity",)
    score: ClassVar[str | None] = "perplexity"
    higher_wins: ClassVar[bool] = False
