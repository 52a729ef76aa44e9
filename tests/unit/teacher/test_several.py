"""Several teachers: who answers for which row, and what the run is told of it."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.rows import Phase
from srecycle.teacher import Ledger, Request, Teacher
from srecycle.teacher.openai import OpenAITeacher
from srecycle.teacher.scripted import ScriptedTeacher, StrengthTeacher
from srecycle.teacher.several import SeveralTeachers
from srecycle.testbed.originals import originals

ROWS = [f"{random.Random(number).getrandbits(64):016x}" for number in range(3000)]


def _several(shares: dict[str, float] | None = None, names: str = "abc", **fields: Any) -> SeveralTeachers:
    teachers: dict[str, Teacher] = {name: StrengthTeacher(level=0.1 * place) for place, name in enumerate(names)}
    return SeveralTeachers(**{"teachers": teachers, "shares": shares or {}} | fields)


def _requests(count: int = 40, phase: Phase = "instruction") -> list[Request]:
    return [
        Request(
            row_id=ROWS[place],
            position=place,
            phase=phase,
            base="original",
            instruction=pair.instruction,
            response=pair.response,
            messages=[],
        )
        for place, pair in enumerate(originals(count, 3))
    ]


def test_teacher_of_rows_follows_the_shares() -> None:
    several = _several({"a": 6, "b": 3, "c": 1})
    counts = Counter(several.teacher_of(row) for row in ROWS)
    assert [counts[name] / len(ROWS) for name in "abc"] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    assert Counter(_several({"b": 0}).teacher_of(row) for row in ROWS)["b"] == 0


def test_teacher_of_depends_on_seed_and_row_alone() -> None:
    forward, backward = _several(names="abc"), _several(names="cba")
    assert [forward.teacher_of(row) for row in ROWS] == [backward.teacher_of(row) for row in ROWS]
    other = _several(seed=1)
    moved = sum(forward.teacher_of(row) != other.teacher_of(row) for row in ROWS) / len(ROWS)
    assert moved == pytest.approx(2 / 3, abs=0.05)
    assert all(forward.teacher_of(f"{row}-2") == forward.teacher_of(row) for row in ROWS[:50])


def test_teacher_of_a_new_teacher_takes_rows_and_moves_none_between_the_others() -> None:
    before, after = _several(names="abc"), _several(names="abcd")
    changed = [after.teacher_of(row) for row in ROWS if after.teacher_of(row) != before.teacher_of(row)]
    assert set(changed) == {"d"} and len(changed) / len(ROWS) == pytest.approx(0.25, abs=0.03)


def test_replies_are_each_teachers_own_under_its_name_in_order(tmp_path: Path) -> None:
    several, requests = _several(), _requests()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        replies = several.replies(requests, ledger)
        for request, reply in zip(requests, replies, strict=True):
            assert reply.teacher == several.teacher_of(request.row_id)
            (own,) = several.teachers[reply.teacher].replies([request], ledger)
            assert own.text == reply.text
        backward = several.replies(requests[::-1], ledger)
        assert backward[::-1] == replies and several.replies(requests[5:9], ledger) == replies[5:9]
    assert {reply.teacher for reply in replies} == {"a", "b", "c"}


def _paid(**fields: Any) -> OpenAITeacher:
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 4.0}
    return OpenAITeacher(**{"model": "m", **prices} | fields)


def test_price_and_outstanding_are_the_teachers_by_their_shares(tmp_path: Path) -> None:
    teachers: dict[str, Teacher] = {"dear": _paid(), "free": ScriptedTeacher()}
    several = SeveralTeachers(teachers=teachers, shares={"dear": 1, "free": 3})
    assert several.price(1_000_000, 1_000_000) == pytest.approx(5.0 / 4)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        requests = _requests()
        left = several.outstanding(requests, ledger)
        assert several.rates(ledger) is None
    assert 0 < len(left) < len(requests)
    assert all(several.teacher_of(request.row_id) == "dear" for request in left)
    assert several.parts(requests)["dear"] == [one for one in requests if several.teacher_of(one.row_id) == "dear"]


def test_check_names_the_teacher_that_lacks_something() -> None:
    teachers: dict[str, Teacher] = {"dear": _paid(), "free": ScriptedTeacher()}
    with pytest.raises(UserError, match="teacher dear: teacher=openai needs a key"):
        SeveralTeachers(teachers=teachers).check()
    SeveralTeachers(teachers=teachers, shares={"dear": 0}).check()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"shares": {"d": 1.0}}, "shares names d, but the teachers are a, b, c"),
        ({"shares": {"a": 0.0, "b": 0.0, "c": 0.0}}, "the shares are all 0"),
        ({"shares": {"a": -1.0}}, "greater than or equal to 0"),
        ({"teachers": {}}, "at least 1 item"),
    ],
)
def test_several_wrong_shares_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        _several(**fields)


def test_several_identity_counts_every_teacher_and_not_their_order() -> None:
    assert identity(_several({"a": 2, "b": 1})) == identity(_several({"b": 1, "a": 2}))
    assert identity(_several(names="ab")) != identity(_several(names="abc")) != identity(_several({"a": 2}))


def test_samples_are_drawn_by_each_rows_own_teacher(tmp_path: Path) -> None:
    several = _several(samples=2)
    requests = [replace(one, sample=sample) for one in _requests() for sample in range(2)]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        told = [reply.text for reply in several.replies(requests, ledger)]
        alone = {name: StrengthTeacher(level=0.1 * place) for place, name in enumerate("abc")}
        for request, text in zip(requests, told, strict=True):
            (expected,) = alone[several.teacher_of(request.row_id)].replies([request], ledger)
            assert text == expected.text


def test_samples_of_one_teacher_alone_are_refused() -> None:
    teachers = {"a": ScriptedTeacher(), "b": ScriptedTeacher(samples=2)}
    with pytest.raises(ValidationError, match=r"set teacher\.samples, not that of b"):
        SeveralTeachers(teachers=teachers)


def test_check_samples_with_a_teacher_that_repeats_itself_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    teachers = {"a": ScriptedTeacher(), "b": OpenAITeacher(model="m", temperature=0.0)}
    SeveralTeachers(teachers=teachers).check()
    SeveralTeachers(teachers=teachers, shares={"b": 0.0}, samples=2).check()
    with pytest.raises(UserError, match=r"teacher\.samples=2 at temperature 0 would be the same text 2 times"):
        SeveralTeachers(teachers=teachers, samples=2).check()
