"""Selection by fit (GRAPE, arXiv:2502.04194): the response that the student finds likeliest, by the token, wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class GRAPE(ScoreSelector):
    """Prefers the version with the highest length-normalised log-probability of its response.

    Without a margin it decides as `perplexity` does; a margin is in nats per token here.
    """

    needs: ClassVar[tuple[str, ...]] = ("grape",)
    score: ClassVar[str | None] = "grape"
    higher_wins: ClassVar[bool] = True
