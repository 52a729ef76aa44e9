"""Selection by feasibility (the paper, section 3.2): the version with the lower r-IFD wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class ReversedIFD(ScoreSelector):
    """Prefers the version from whose response the student can best guess the instruction."""

    needs: ClassVar[tuple[str, ...]] = ("r_ifd",)
    score: ClassVar[str | None] = "r_ifd"
    higher_wins: ClassVar[bool] = False
