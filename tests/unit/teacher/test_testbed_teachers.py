"""The micro-world's further teachers: one with manners, and a student that teaches itself."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.compose import PACKAGE
from srecycle.config import identity
from srecycle.reflection.parsing import parse
from srecycle.rows import OK, Phase
from srecycle.student.model import Student
from srecycle.teacher import Ledger, Request, Teacher
from srecycle.teacher.mannered import ManneredTeacher
from srecycle.teacher.scripted import ScriptedTeacher
from srecycle.teacher.testbed_student import TestbedStudentTeacher as StudentTeacher
from srecycle.testbed.judgement import judge
from srecycle.testbed.manner import answer_of, instruction_of
from srecycle.testbed.originals import originals
from srecycle.testbed.wording import FILLER, without_lead_ins

PHASES: tuple[Phase, ...] = ("instruction", "response")
KNOBS: dict[str, Any] = {"hallucinates_step": 0.2, "drifts": 0.2, "unparsable": 0.1, "seed": 3}


def _requests(rows: int) -> list[Request]:
    return [
        Request(
            row_id=f"row{place}",
            position=place,
            phase=phase,
            base="original",
            instruction=pair.instruction,
            response=pair.response,
            messages=[],
        )
        for place, pair in enumerate(originals(rows, 2))
        for phase in PHASES
    ]


def _texts(teacher: Teacher, requests: list[Request], tmp_path: Path) -> list[str]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        return [reply.text for reply in teacher.replies(requests, ledger)]


def test_mannered_without_manners_is_the_scripted_teacher(tmp_path: Path) -> None:
    asked = _requests(30)
    assert _texts(ManneredTeacher(**KNOBS), asked, tmp_path) == _texts(ScriptedTeacher(**KNOBS), asked, tmp_path)


def test_mannered_says_the_same_in_another_way(tmp_path: Path) -> None:
    asked = _requests(60)
    plain = _texts(ScriptedTeacher(**KNOBS), asked, tmp_path)
    said = _texts(ManneredTeacher(**KNOBS, filler=0.5), asked, tmp_path)
    pairs = [(answer_of(one), answer_of(two)) for one, two in zip(plain, said, strict=True)]
    assert all(without_lead_ins(two or "") == without_lead_ins(one or "") for one, two in pairs)
    changed = [(two or "").startswith(FILLER) for one, two in pairs if one and not one.startswith(FILLER)]
    assert 0.35 < sum(changed) / len(changed) < 0.65
    assert said[::-1] == _texts(ManneredTeacher(**KNOBS, filler=0.5), asked[::-1], tmp_path)


def test_scripted_teachers_identity_knows_nothing_of_manners() -> None:
    """Keys of what was made before manners came stay."""
    assert not {"filler", "hedges_faults", "hedges_sound"} & set(identity(ScriptedTeacher()))
    assert identity(ManneredTeacher()) != identity(ManneredTeacher(filler=0.1))


@pytest.fixture(scope="module")
def weak() -> Student:
    return Student(path=str(PACKAGE / "testbed/bases/weak"), device="cpu", threads=1, max_length=256)


def test_student_teacher_answers_what_a_script_asks(weak: Student, tmp_path: Path) -> None:
    asked = _requests(24)
    teacher = StudentTeacher(model=weak, seed=1)
    replies = _texts(teacher, asked, tmp_path)
    teacher.close()
    scripted = _texts(ScriptedTeacher(raises_level=0.7, seed=1), asked, tmp_path)
    for one, reply, plain in zip(asked, replies, scripted, strict=True):
        assert parse(one.phase, reply, "stop").status == OK
        assert instruction_of(reply) == instruction_of(plain)
    verdicts = [
        judge(instruction_of(text) or one.instruction, answer_of(text) or "")
        for one, text in zip(asked, replies, strict=True)
    ]
    assert 0.25 < verdicts.count("ok") / len(verdicts) < 1  # it errs by itself, and is right by itself
    assert sum(answer_of(one) == answer_of(two) for one, two in zip(replies, scripted, strict=True)) < 12


def test_student_teacher_reply_depends_on_its_request_alone(weak: Student, tmp_path: Path) -> None:
    asked = _requests(5)
    teacher = StudentTeacher(model=weak)
    whole = _texts(teacher, asked, tmp_path)
    assert _texts(teacher, asked[::-1], tmp_path) == whole[::-1]
    assert [_texts(teacher, [one], tmp_path)[0] for one in asked[:3]] == whole[:3]
    assert _texts(StudentTeacher(model=weak, seed=9), asked, tmp_path) != whole


def test_student_teacher_of_no_student_is_refused(weak: Student) -> None:
    with pytest.raises(ValidationError, match="model should be a student, not ScriptedTeacher"):
        StudentTeacher(model=ScriptedTeacher())
    assert StudentTeacher(model=weak, temperature=0.0).deterministic and not StudentTeacher(model=weak).deterministic
