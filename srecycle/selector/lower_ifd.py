"""Selection by ease: the version with the lower IFD wins, the paper's first step the other way round."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class LowerIFD(ScoreSelector):
    """Prefers the version whose response its instruction helps most to predict."""

    needs: ClassVar[tuple[str, ...]] = ("ifd",)
    score: ClassVar[str | None] = "ifd"
    higher_wins: ClassVar[bool] = False
