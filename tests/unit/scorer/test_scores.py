"""Scores against the equations of the paper, worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.scorer import Scorer, scores
from srecycle.scorer.scorer import LIKELIHOODS, SCORES

NAMES = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")
Line = tuple[float, ...]


def _scores(*lines: Line) -> dict[str, list[float]]:
    """Score lines of the four losses, shift, rank and the answer's loss: the last three are 0, 1, 1 if left out."""
    assert (*NAMES, "shift_y", "rank_y_given_x", "loss_answer") == LIKELIHOODS
    whole = [line + (0.0, 1.0, 1.0)[len(line) - 4 :] for line in lines]
    columns = {name: np.array([line[place] for line in whole]) for place, name in enumerate(LIKELIHOODS)}
    return {name: column.tolist() for name, column in scores(columns).items()}


def test_scores_by_hand() -> None:
    # ppl(y|x) = e^0.5, ppl(y) = e^2; ppl(x|y') = e^3, ppl(x) = e^1.5
    found = _scores((0.5, 2.0, 3.0, 1.5, -0.25, 12.0, 0.125))
    assert set(found) == set(SCORES)
    assert found["ifd"] == [pytest.approx(math.exp(0.5) / math.exp(2.0))] == [pytest.approx(0.22313016)]
    assert found["r_ifd"] == [pytest.approx(math.exp(3.0) / math.exp(1.5))] == [pytest.approx(4.48168907)]
    assert found["ifd_loss_ratio"] == [0.25]
    assert found["r_ifd_loss_ratio"] == [2.0]
    assert found["perplexity"] == [pytest.approx(1.64872127)]
    assert found["s_ifd"] == [pytest.approx(0.77880078)]  # e^-0.25
    assert found["grape"] == [-0.5]
    assert found["rank_surprisal"] == [24.0]  # 12 ranks over half a nat
    assert found["confidence"] == [pytest.approx(0.88249690)]  # e^-0.125


def test_scores_missing_likelihood_spoils_only_what_needs_it() -> None:
    nan = math.nan
    found = _scores(
        (nan, 2.0, 3.0, 1.5, 0.0, 1.0, nan),
        (0.5, 2.0, 3.0, nan),
        (0.5, 2.0, 3.0, 1.5, nan, 1.0),
        (0.5, 2.0, 3.0, 1.5, 0.0, nan),
    )
    missing = {name: [math.isnan(value) for value in values] for name, values in found.items()}
    assert missing == {
        "ifd": [True, False, False, False],
        "r_ifd": [False, True, False, False],
        "ifd_loss_ratio": [True, False, False, False],
        "r_ifd_loss_ratio": [False, True, False, False],
        "perplexity": [True, False, False, False],
        "s_ifd": [False, False, True, False],
        "grape": [True, False, False, False],
        "rank_surprisal": [True, False, False, True],
        "confidence": [True, False, False, False],
    }


def test_scores_of_a_certain_response_have_no_rank_surprisal() -> None:
    """A loss of 0 is no denominator: there is no score, and no infinite one that would win."""
    assert math.isnan(_scores((0.0, 2.0, 3.0, 1.5, 0.0, 1.0))["rank_surprisal"][0])


def test_scores_shift_overflow_is_missing() -> None:
    assert math.isnan(_scores((1.0, 1.0, 1.0, 1.0, 800.0, 1.0))["s_ifd"][0])


@pytest.mark.parametrize(
    ("field", "value"),
    [("s_ifd_share", 0), ("s_ifd_share", 1.1), ("rank_clip", 0), ("batch_tokens", 0), ("compat", "paper")],
)
def test_scorer_settings_without_meaning_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Scorer(**{"reversed_request": "guess {response}", field: value})


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
