"""Scores of criteria: given ones are read, all others are absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.reflection.criteria import scores
from srecycle.reflection.parsing import parse

NAMES = ("the complexity of the topic", "helpfulness", "accuracy")


def _given(critique: str) -> dict[str, float]:
    return {one.name: one.score for one in scores(critique, NAMES).given}


@pytest.mark.parametrize(
    "line",
    [
        "[Score] helpfulness: 7",
        "[score] Helpfulness: 7/10",
        "- **[Score]** helpfulness: **7**",
        "1. [Score] helpfulness : 7 / 10.",
        "> [Score] *helpfulness*: 7 out of 10",
        "\\[Score\\] helpfulness: 7.0",
        "**[Score] helpfulness: 7**",
        "[Score] helpfulness: 7\r",
        "[Score] helpfulness: 3\n[Score] helpfulness: 7",
    ],
)
def test_scores_form_of_a_line_is_forgiven(line: str) -> None:
    assert _given(f"Well.\n{line}\nIt is weak.") == {"helpfulness": 7.0}
    assert scores(line, NAMES).malformed == 0


@pytest.mark.parametrize(
    "value", ["0", "11", "-3", "0.5", "10.1", "high", "", "7-8", "N/A", "nan", "inf", "1e1", "700", "7 of 9", "number"]
)
def test_scores_value_that_is_none_is_absent_and_counted(value: str) -> None:
    found = scores(f"[Score] helpfulness: {value}\n[Score] accuracy: 10", NAMES)
    assert [(one.name, one.score) for one in found.given] == [("accuracy", 10.0)]
    assert found.malformed == 1


def test_scores_unknown_names_and_prose_give_none() -> None:
    found = scores("helpfulness: 7\nThe [Score] helpfulness: 7\n[Score] style: 7\n[Score] 7", NAMES)
    assert (found.given, found.malformed) == ((), 2)


def test_scores_come_in_the_order_of_the_criteria() -> None:
    critique = "[Score] accuracy: 1\n[Score] the complexity of the topic: 10\n[Score] helpfulness: 5.5"
    assert list(_given(critique).items()) == [(NAMES[0], 10.0), (NAMES[1], 5.5), (NAMES[2], 1.0)]


def test_parse_scores_stand_in_the_critique_only() -> None:
    reply = "[Score] accuracy: 4\n[Better Answer]\n[Score] helpfulness: 9\n[End]\n[Score] helpfulness: 9"
    parsed = parse("response", reply, "stop", criteria=NAMES)
    assert [(one.name, one.score) for one in parsed.criteria] == [("accuracy", 4.0)]
    assert parse("response", reply, "stop").criteria == ()
    assert parse("response", reply.replace("[End]", "", 1), "length", criteria=NAMES).criteria == ()


@given(st.text(), st.lists(st.text(min_size=1), max_size=3))
def test_scores_of_anything_lie_between_one_and_ten(text: str, names: list[str]) -> None:
    critique = "\n".join(f"[Score] {name}: {text}" for name in names)
    assert all(1 <= one.score <= 10 and one.name in names for one in scores(critique, names).given)
