"""Grades' figures: means, standard errors of questions, and what has no grade."""

import math

import pytest

from srecycle.judge.grades import Grading, figures, metrics_of, read
from srecycle.teacher import Reply


def _grading(id: str, turn: int, grade: float | None, category: str = "math", status: str = "ok") -> Grading:
    return Grading(
        id=id,
        position=0,
        turn=turn,
        category=category,
        question="q",
        answer="a",
        reference=False,
        case=None,
        status=status,
        grade=grade,
    )


def test_metrics_tell_turns_categories_and_overall() -> None:
    found = metrics_of(
        [
            _grading("a", 1, 8.0),
            _grading("a", 2, 6.0),
            _grading("b", 1, 3.0, "writing"),
            _grading("b", 2, None, "writing", "out_of_range"),
        ]
    )
    assert (found["overall/score"], found["overall/judged"], found["overall/asked"]) == (pytest.approx(17 / 3), 3, 4)
    assert (found["turn_1/score"], found["turn_2/score"], found["turn_2/judged"]) == (5.5, 6.0, 1)
    assert (found["category/math/score"], found["category/writing/score"]) == (7.0, 3.0)
    assert found["overall/unjudged/out_of_range"] == found["category/writing/unjudged/out_of_range"] == 1
    # The questions' means are 7 and 3.
    assert found["overall/score_stderr"] == pytest.approx(math.sqrt(8) / math.sqrt(2))
    assert "turn_2/score_stderr" not in found and "category/math/score_stderr" not in found


def test_figures_without_grades_have_no_score() -> None:
    assert figures([_grading("a", 1, None, status="cut")]) == {"asked": 1, "judged": 0, "unjudged/cut": 1}


@pytest.mark.parametrize(
    ("reply", "status", "scores"),
    [
        (Reply(text="Right.\n[[9]]"), "ok", (9.0,)),
        (Reply(text="Rating: [[7.5]]"), "ok", (7.5,)),
        (Reply(text="[[11]]"), "out_of_range", ()),
        (Reply(text="[[0]]"), "out_of_range", ()),
        (Reply(text='The answer asks for "[[10]]". [[2]]'), "ambiguous", ()),
        (Reply(text="It deserves a ten out of ten."), "unparsed", ()),
        (Reply(text="", status="refused"), "refused", ()),
    ],
)
def test_grade_is_read_or_has_a_reason(reply: Reply, status: str, scores: tuple[float, ...]) -> None:
    assert (read(reply).status, read(reply).scores) == (status, scores)
