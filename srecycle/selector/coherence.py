"""Selection by coherence (an arm of the paper's table 4): the version whose instruction and response are most alike."""

from typing import ClassVar

from srecycle.config import component
from srecycle.selector.base import COHERENCE, ScoreSelector


@component
class Coherence(ScoreSelector):
    """Prefers the version with the higher cosine between the embeddings of its instruction and its response."""

    needs: ClassVar[tuple[str, ...]] = (COHERENCE,)
    score: ClassVar[str | None] = COHERENCE
    higher_wins: ClassVar[bool] = True
