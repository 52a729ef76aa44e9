"""Selection by coherence: the higher cosine wins."""

import numpy as np
import pytest

from srecycle.selector.base import COHERENCE, Contest
from srecycle.selector.coherence import Coherence


def _winners(selector: Coherence, pairs: list[tuple[float, float]]) -> list[int]:
    column = np.array(pairs)
    contest = Contest(
        phase="response",
        ids=np.array([f"id{n}" for n in range(len(pairs))]),
        usable=np.ones(column.shape, dtype=bool),
        columns={COHERENCE: column},
    )
    winner: list[int] = selector.choose(contest).winner.tolist()
    return winner


@pytest.mark.parametrize(("tie", "of_equals"), [("incumbent", 0), ("challenger", 1)])
def test_coherence_higher_cosine_wins_and_a_missing_one_never(tie: str, of_equals: int) -> None:
    pairs = [(0.2, 0.3), (0.3, 0.2), (-0.5, -0.1), (0.4, 0.4), (np.nan, 0.9), (-0.9, np.nan)]
    assert _winners(Coherence(tie=tie), pairs) == [1, 0, 1, of_equals, 0, 0]


def test_coherence_margin_must_be_exceeded() -> None:
    assert _winners(Coherence(margin=0.25), [(0.0, 0.25), (0.0, 0.26), (0.5, 0.6)]) == [0, 1, 0]


def test_coherence_reads_embeddings_only() -> None:
    assert Coherence().needed == (COHERENCE,) and Coherence.score == COHERENCE
