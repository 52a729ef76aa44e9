"""Selection by the difficulty of the tokens that matter (T-SHIRT, arXiv:2506.01317): the higher S-IFD wins."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import ScoreSelector


@component
class SIFD(ScoreSelector):
    """Prefers the version whose instruction helps least with those response tokens that it moves most."""

    needs: ClassVar[tuple[str, ...]] = ("s_ifd",)
    score: ClassVar[str | None] = "s_ifd"
    higher_wins: ClassVar[bool] = True
