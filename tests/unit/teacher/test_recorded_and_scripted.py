"""The two teachers that need no server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.reflection.parsing import parse
from srecycle.rows import Phase, Version
from srecycle.teacher import Ledger, Request, Teacher
from srecycle.teacher.replay import ReplayTeacher
from srecycle.teacher.scripted import ScriptedTeacher, StrengthTeacher
from srecycle.testbed.originals import originals

_BASES: tuple[Version, ...] = ("original", "instruction")


def _request(position: int, phase: Phase, base: Version, **fields: Any) -> Request:
    texts = {"row_id": f"row{position}", "instruction": "i", "response": "r", "messages": []} | fields
    return Request(position=position, phase=phase, base=base, **texts)


def _replies(teacher: Teacher, requests: list[Request], tmp_path: Path) -> list[str]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        return [reply.text if reply.status == "ok" else reply.status for reply in teacher.replies(requests, ledger)]


def _file(tmp_path: Path, *records: dict[str, Any]) -> Path:
    path = tmp_path / "replies.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_replay_looks_up_position_phase_and_base(tmp_path: Path) -> None:
    path = _file(
        tmp_path,
        {"index": 5, "kind": "instruction", "reply": "five i"},
        {"index": 5, "kind": "response_original", "reply": "five o", "finish_reason": "length"},
        {"index": 5, "kind": "response_reflected", "reply": "five r"},
        {"index": 0, "kind": "instruction", "reply": "zero i"},
    )
    asked = [
        _request(0, "instruction", "original"),
        _request(5, "response", "instruction"),
        _request(5, "response", "original"),
        _request(5, "instruction", "original"),
        _request(0, "response", "original"),
        _request(1, "instruction", "original"),
    ]
    assert _replies(ReplayTeacher(path=path), asked, tmp_path) == [
        "zero i",
        "five r",
        "five o",
        "five i",
        "not_recorded",
        "not_recorded",
    ]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        cut, whole = ReplayTeacher(path=path).replies(asked[2:4], ledger)
    assert (cut.finish_reason, whole.finish_reason, cut.paid) == ("length", "stop", False)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"index": 0, "kind": "critique", "reply": ""}, "has the kind 'critique'; known are instruction, response_"),
        ({"index": "0", "kind": "instruction", "reply": ""}, "'index' should be a whole number.*'0'"),
        ({"index": True, "kind": "instruction", "reply": ""}, "'index' should be a whole number.*True"),
        ({"kind": "instruction", "reply": ""}, "'index' should be a whole number.*None"),
        ({"index": 0, "kind": "instruction"}, "record 0 has no column 'reply'"),
    ],
)
def test_replay_bad_record_is_refused(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _replies(ReplayTeacher(path=_file(tmp_path, record)), [_request(0, "instruction", "original")], tmp_path)


def test_replay_identity_is_the_files_content(tmp_path: Path) -> None:
    path = _file(tmp_path, {"index": 0, "kind": "instruction", "reply": "a"})
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    assert identity(ReplayTeacher(path=path)) == identity(ReplayTeacher(path=copy))
    copy.write_text("")
    assert identity(ReplayTeacher(path=path)) != identity(ReplayTeacher(path=copy))
    with pytest.raises(UserError, match=r"teacher\.path=.*is not a file"):
        identity(ReplayTeacher(path=tmp_path / "nowhere"))


def _scripted_requests() -> list[Request]:
    pairs = originals(12, 3)
    return [
        _request(place, phase, "original", instruction=pair.instruction, response=pair.response)
        for place, pair in enumerate(pairs)
        for phase in ("instruction", "response")
    ]


@pytest.mark.parametrize("teacher", [ScriptedTeacher(mismatches=0.3, drifts=0.3), StrengthTeacher(level=0.4)])
def test_scripted_reply_depends_on_the_request_alone(tmp_path: Path, teacher: Teacher) -> None:
    requests = _scripted_requests()
    whole = _replies(teacher, requests, tmp_path)
    backwards = _replies(teacher, requests[::-1], tmp_path)
    assert backwards == whole[::-1]
    assert [_replies(teacher, [request], tmp_path)[0] for request in requests] == whole


def test_scripted_other_seed_row_or_base_draws_anew(tmp_path: Path) -> None:
    requests = _scripted_requests()
    one, other = (_replies(ScriptedTeacher(seed=seed), requests, tmp_path) for seed in (0, 1))
    assert one != other
    same_texts = [_request(n, "instruction", "original", instruction=requests[0].instruction) for n in range(8)]
    assert len(set(_replies(ScriptedTeacher(), same_texts, tmp_path))) > 1
    bases = [
        _replies(
            ScriptedTeacher(),
            [_request(n, "response", base, instruction=requests[0].instruction) for n in range(8)],
            tmp_path,
        )
        for base in _BASES
    ]
    assert bases[0] != bases[1]


def test_scripted_without_faults_always_parses(tmp_path: Path) -> None:
    requests = _scripted_requests()
    for request, text in zip(requests, _replies(ScriptedTeacher(unparsable=0), requests, tmp_path), strict=True):
        assert parse(request.phase, text, "stop").status == "ok"
    spoilt = _replies(ScriptedTeacher(unparsable=1), requests, tmp_path)
    statuses = {parse(one.phase, text, "stop").status for one, text in zip(requests, spoilt, strict=True)}
    assert "unparsed" in statuses


def test_scripted_too_many_faults_are_refused_before_any_work() -> None:
    with pytest.raises(ValidationError, match="at most one fault an answer"):
        ScriptedTeacher(mismatches=0.7, drifts=0.7)


@pytest.mark.parametrize("teacher", [ScriptedTeacher(mismatches=0.3, drifts=0.3), StrengthTeacher(level=0.4)])
def test_scripted_samples_are_drawn_apart_and_the_first_is_that_of_one(tmp_path: Path, teacher: Teacher) -> None:
    requests = _scripted_requests()
    one, first, second, third = (
        _replies(asked, [replace(request, sample=sample) for request in requests], tmp_path)
        for asked, sample in ((teacher, 0), *((replace(teacher, samples=3), sample) for sample in range(3)))
    )
    assert one == first
    for others in ((first, second), (first, third), (second, third)):
        assert sum(a != b for a, b in zip(*others, strict=True)) > len(requests) / 4


def _numbered_replies(tmp_path: Path) -> ReplayTeacher:
    path = _file(
        tmp_path,
        {"index": 0, "kind": "instruction", "n": 1, "reply": "second"},
        {"index": 0, "kind": "instruction", "n": 0, "reply": "first"},
        {"index": 0, "kind": "response_reflected", "n": 0, "reply": "better"},
        {"index": 1, "kind": "instruction", "n": 0, "reply": "alone"},
    )
    return ReplayTeacher(
        path=path, columns={"row": "index", "version": "kind", "sample": "n", "reply": "reply"}, samples=2
    )


def test_replay_serves_the_samples_that_are_recorded(tmp_path: Path) -> None:
    asked = [_request(row, "instruction", "original", sample=sample) for row in (0, 1) for sample in range(3)]
    told = _replies(_numbered_replies(tmp_path), asked, tmp_path)
    assert told == ["first", "second", "not_recorded", "alone", "not_recorded", "not_recorded"]


def test_replay_without_a_column_of_samples_has_one(tmp_path: Path) -> None:
    path = _file(tmp_path, {"index": 0, "kind": "instruction", "reply": "one"})
    asked = [_request(0, "instruction", "original", sample=sample) for sample in range(2)]
    assert _replies(ReplayTeacher(path=path, samples=2), asked, tmp_path) == ["one", "not_recorded"]


def test_replay_response_to_another_sample_of_the_instruction_is_not_recorded(tmp_path: Path) -> None:
    asked = [_request(0, "response", base) for base in ("instruction", "instruction-2")]
    assert _replies(_numbered_replies(tmp_path), asked, tmp_path) == ["better", "not_recorded"]


@pytest.mark.parametrize("number", [-1, "0", None, True])
def test_replay_bad_number_of_a_sample_is_refused(tmp_path: Path, number: Any) -> None:
    teacher = _numbered_replies(tmp_path)
    _file(tmp_path, {"index": 0, "kind": "instruction", "n": number, "reply": ""})
    with pytest.raises(UserError, match=rf"'n' should be a whole number \(the sample, counted from 0\).*{number!r}"):
        _replies(teacher, [_request(0, "instruction", "original")], tmp_path)


def test_replay_samples_of_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"columns\.sample needs columns\.version"):
        ReplayTeacher(path=tmp_path, columns={"reply": "reply", "sample": "n"})
