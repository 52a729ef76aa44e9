"""Selection by difficulty (the paper, section 3.1): the version with the higher IFD wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class IFD(ScoreSelector):
    """Prefers the version whose response its instruction helps least to predict."""

    needs: ClassVar[tuple[str, ...]] = ("ifd",)
    score: ClassVar[str | None] = "ifd"
    higher_wins: ClassVar[bool] = True
