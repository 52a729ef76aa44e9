"""The first step the other way round: the easier version wins."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from srecycle.selector.base import Contest
from srecycle.selector.ifd import IFD
from srecycle.selector.lower_ifd import LowerIFD


def _contest(rows: list[tuple[float, float]]) -> Contest:
    values = np.array(rows, dtype=np.float64)
    ids = np.array([f"r{number}" for number in range(len(rows))])
    return Contest(phase="instruction", ids=ids, usable=np.ones(values.shape, dtype=bool), columns={"ifd": values})


def test_lower_ifd_takes_the_easier_a_tie_or_no_score_leaves_the_incumbent() -> None:
    rows = [(0.5, 0.4), (0.5, 0.6), (0.5, 0.5), (0.5, math.nan), (math.nan, 0.1)]
    assert LowerIFD().choose(_contest(rows)).winner.tolist() == [1, 0, 0, 0, 0]
    assert LowerIFD(margin=0.2).choose(_contest(rows)).winner.tolist() == [0, 0, 0, 0, 0]


@given(st.lists(st.tuples(st.floats(0.01, 5), st.floats(0.01, 5)), min_size=1))
def test_lower_ifd_takes_what_the_papers_first_step_refuses(rows: list[tuple[float, float]]) -> None:
    lower, higher = (one.choose(_contest(rows)).winner for one in (LowerIFD(), IFD()))
    assert ((lower == 1) != (higher == 1))[[one != two for one, two in rows]].all()
    assert not (lower | higher)[[one == two for one, two in rows]].any()
