"""Selection by informative alignment (arXiv:2601.14249): the lower rank-surprisal ratio wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class RankSurprisal(ScoreSelector):
    """Prefers responses of unlikely tokens that still rank high: new to the student, yet within its reach."""

    needs: ClassVar[tuple[str, ...]] = ("rank_surprisal",)
    score: ClassVar[str | None] = "rank_surprisal"
    higher_wins: ClassVar[bool] = False
