"""Scores against the equations of the paper, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.scorer import Scorer, scores
from srecycle.scorer.scorer import SCORES

NAMES = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")


def _scores(*lines: tuple[float, float, float, float]) -> dict[str, list[float]]:
    columns = {name: np.array([line[place] for line in lines]) for place, name in enumerate(NAMES)}
    return {name: column.tolist() for name, column in scores(columns).items()}


def test_scores_by_hand() -> None:
    # ppl(y|x) = e^0.5, ppl(y) = e^2; ppl(x|y') = e^3, ppl(x) = e^1.5
    found = _scores((0.5, 2.0, 3.0, 1.5))
    assert set(found) == set(SCORES)
    assert found["ifd"] == [pytest.approx(math.exp(0.5) / math.exp(2.0))] == [pytest.approx(0.22313016)]
    assert found["r_ifd"] == [pytest.approx(math.exp(3.0) / math.exp(1.5))] == [pytest.approx(4.48168907)]
    assert found["ifd_loss_ratio"] == [0.25]
    assert found["r_ifd_loss_ratio"] == [2.0]
    assert found["perplexity"] == [pytest.approx(1.64872127)]


def test_scores_missing_likelihood_spoils_only_what_needs_it() -> None:
    found = _scores((math.nan, 2.0, 3.0, 1.5), (0.5, 2.0, 3.0, math.nan))
    missing = {name: [math.isnan(value) for value in values] for name, values in found.items()}
    assert missing == {
        "ifd": [True, False],
        "r_ifd": [False, True],
        "ifd_loss_ratio": [True, False],
        "r_ifd_loss_ratio": [False, True],
        "perplexity": [True, False],
    }


@pytest.mark.parametrize("line", [(2000.0, 1.0, 2000.0, 1.0), (1.0, 0.0, 1.0, 0.0), (math.inf, 1.0, math.inf, 1.0)])
def test_scores_overflow_is_missing_and_never_infinite(line: tuple[float, float, float, float]) -> None:
    found = _scores(line)
    assert not any(math.isinf(value) for values in found.values() for value in values)
    spoilt = ("ifd_loss_ratio", "r_ifd_loss_ratio") if line[1] == 0 else ("ifd", "r_ifd", "perplexity")
    assert all(math.isnan(found[name][0]) for name in spoilt)


@given(st.lists(st.tuples(*(st.floats(0, 50),) * 4), min_size=1, max_size=20))
def test_scores_below_one_exactly_where_the_condition_helps(lines: list[tuple[float, float, float, float]]) -> None:
    for line, ifd, r_ifd in zip(lines, *(_scores(*lines)[name] for name in ("ifd", "r_ifd")), strict=True):
        assert (ifd < 1) == (line[0] - line[1] < 0 and math.exp(line[0] - line[1]) < 1)
        assert (r_ifd <= 1) == (math.exp(line[2] - line[3]) <= 1)


def test_request_response_with_braces_stands_as_it_is() -> None:
    assert Scorer(reversed_request="guess {response} {x}").request("{response}") == "guess {response} {x}"


def test_scorer_request_without_response_is_refused() -> None:
    with pytest.raises(ValidationError, match="reversed_request"):
        Scorer(reversed_request="guess the instruction")
