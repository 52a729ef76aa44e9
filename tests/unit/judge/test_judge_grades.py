"""Grades' figures: means, standard errors of questions, and what has no grade."""

import math

import pytest

from srecycle.judge.grades import Grading, figures
from srecycle.teacher import Reply


def _graded(id: str, reply: Reply, turn: int = 1) -> Grading:
    texts = {"question": "q", "answer": "a"}
    about = {"id": id, "position": 0, "turn": turn, "category": "math", "question": "q"}
    return Grading(**about, texts=texts, answer="answer").graded(reply)


def test_grades_figures_are_means_with_the_standard_error_of_questions() -> None:
    grades = {("a", 1): 8, ("a", 2): 6, ("b", 1): 3, ("b", 2): 99}
    found = figures([_graded(id, Reply(text=f"[[{grade}]]"), turn) for (id, turn), grade in grades.items()])
    assert (found["score"], found["judged"], found["asked"]) == (pytest.approx(17 / 3), 3, 4)
    assert found["unjudged/out_of_range"] == 1
    # The questions' means are 7 and 3.
    assert found["score_stderr"] == pytest.approx(math.sqrt(8) / math.sqrt(2))


def test_grades_figures_without_grades_have_no_score() -> None:
    cut = Reply(text="[[7", finish_reason="length")
    assert figures([_graded("a", cut)]) == {"asked": 1, "judged": 0, "unjudged/cut": 1}


@pytest.mark.parametrize(
    ("reply", "status", "grade"),
    [
        (Reply(text="Right.\n[[9]]"), "ok", 9.0),
        (Reply(text="Rating: [[7.5]]"), "ok", 7.5),
        (Reply(text="[[11]]"), "out_of_range", None),
        (Reply(text="[[0]]"), "out_of_range", None),
        (Reply(text='The answer asks for "[[10]]". [[2]]'), "ambiguous", None),
        (Reply(text="It deserves a ten out of ten."), "unparsed", None),
        (Reply(text="", status="refused"), "refused", None),
    ],
)
def test_grade_is_read_or_has_a_reason(reply: Reply, status: str, grade: float | None) -> None:
    found = _graded("a", reply)
    assert (found.reason, found.verdict) == (status, grade) and not found.asked
