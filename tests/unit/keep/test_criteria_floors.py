"""Floors under the teacher's scores: at the floor is kept, below and missing refused."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.keep.criteria import CriteriaFloors
from tests.unit.keep.taken import taken


def _given(**scores: float) -> list[dict[str, Any]]:
    return [{"name": name.replace("_", " "), "score": score} for name, score in scores.items()]


ROWS = [
    _given(helpfulness=7, level_of_details=5),
    _given(helpfulness=6.9, level_of_details=5),
    _given(helpfulness=10, level_of_details=4),
    _given(helpfulness=1, level_of_details=1),
    _given(level_of_details=9),
    _given(helpfulness=9, accuracy=9),
    [],
    "",  # no such version
]
FLOORS = CriteriaFloors(floors={"helpfulness": 7, "level of details": 5})


def test_criteria_refuses_by_the_first_that_is_too_low_or_missing() -> None:
    assert FLOORS.reasons(taken(len(ROWS), criteria=ROWS)).tolist() == [
        *["", "helpfulness_too_low", "level_of_details_too_low", "helpfulness_too_low"],
        *["helpfulness_unscored", "level_of_details_unscored", "helpfulness_unscored", "helpfulness_unscored"],
    ]


def test_criteria_slack_is_that_of_the_floor_that_decides() -> None:
    slack = FLOORS.slack(taken(len(ROWS), criteria=ROWS))
    assert slack[:3] == pytest.approx([0, -0.1, -1])
    assert [math.isnan(one) for one in slack] == [False] * 3 + [True] * 5  # two missed, or a score missing


@pytest.mark.parametrize("floors", [{}, {"helpfulness": 0.5}, {"helpfulness": 11}, {"helpfulness": math.nan}])
def test_criteria_floor_without_meaning_is_refused(floors: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CriteriaFloors(floors=floors)


def test_criteria_names_may_have_underscores_for_spaces() -> None:
    underscored = CriteriaFloors(floors={"helpfulness": 7, "level_of_details": 5})
    assert underscored == FLOORS
    with pytest.raises(ValidationError, match="level of details, level_of_details: two of these name the same"):
        CriteriaFloors(floors={"level of details": 5, "level_of_details": 6})
    chosen = taken(2, criteria=[[{"name": "tone_of_voice", "score": 3}], [{"name": "tone_of_voice", "score": 5}]])
    assert CriteriaFloors(floors={"tone_of_voice": 4}).reasons(chosen).tolist() == ["tone_of_voice_too_low", ""]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[], ""], "none: set reflection.score_criteria=true"),
        (
            [_given(accuracy=3), _given(relevance=4)],
            "accuracy, relevance: correct the name",
        ),
    ],
)
def test_criteria_without_any_score_say_what_to_set(rows: list[Any], said: str) -> None:
    with pytest.raises(
        UserError, match=f"keep.criteria.floors has 'helpfulness', but the criteria with scores are {said}"
    ):
        CriteriaFloors(floors={"helpfulness": 3}).reasons(taken(2, criteria=rows))


def test_criteria_of_originals_alone_are_unscored() -> None:
    told = FLOORS.reasons(taken(2, criteria=[[], []], version=["original"] * 2)).tolist()
    assert told == ["helpfulness_unscored"] * 2 and FLOORS.reasons(taken(0, criteria=[])).tolist() == []


SCORE = st.none() | st.floats(1, 10)


@given(st.lists(st.tuples(SCORE, SCORE), max_size=8), st.floats(1, 10), st.floats(1, 10))
def test_criteria_higher_floor_keeps_no_more(pairs: list[Any], floor: float, other: float) -> None:
    rows = [
        [{"name": name, "score": score} for name, score in zip("ab", pair, strict=True) if score is not None]
        for pair in pairs
    ]
    low, high = sorted((floor, other))
    # The last row: each criterion has a score somewhere.
    chosen = taken(len(rows) + 1, criteria=[*rows, _given(a=1, b=1)])
    kept = [CriteriaFloors(floors={"a": one, "b": 5}).reasons(chosen) == "" for one in (low, high)]
    assert (kept[0] | ~kept[1]).all()
    expected = [all(score is not None for score in pair) and pair[0] >= low and pair[1] >= 5 for pair in pairs]
    assert kept[0].tolist() == [*expected, False]
