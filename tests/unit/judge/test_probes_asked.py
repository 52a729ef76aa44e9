"""Probes beside a judged result: asked of a real server, of a recording, quoted, and paid for once."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.evaluator.pairwise import Pairwise
from srecycle.judge import Judge, TeacherJudge
from srecycle.judge.replay import ReplayJudge
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.student import Student
from srecycle.student.template import PromptTemplate
from srecycle.teacher.openai import OpenAITeacher
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer

QUESTIONS = ("what is 3 plus 4", "reverse the list 1 2 3", "what is 9 minus 2")
PROBES = ("references", "padding")
USD = (700 * 2 + 300 * 10) / 1e6
"""A reply's price: the server's usage at the prices below."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    template = PromptTemplate(user="{instruction} :", user_with_input="{instruction} {input} :", response_prefix=" ")
    student = Student(path=str(ROOT / "srecycle/testbed/bases/weak"), device="cpu", threads=1, max_length=64)
    return Subject(student=student, template=template, adapter=None, training=pa.table({}))


def _shown(body: Mapping[str, Any]) -> tuple[str, str]:
    _, _, answers = body["messages"][-1]["content"].partition("<1>")
    first, _, second = answers.partition("<2>")
    return first, second


def _falls_for_references(body: Mapping[str, Any]) -> str:
    """Count the stars of an answer, and believe one that has references."""
    first, second = (text.count("*") + 5 * ("[1] Smith" in text) for text in _shown(body))
    return f"{9 if first > second else 5} {9 if second > first else 5}"


def _cannot_read_long_ones(body: Mapping[str, Any]) -> str:
    return "I can't compare these." if sum(map(len, _shown(body))) > 250 else _falls_for_references(body)


def _judge(server: FaultyServer, **fields: Any) -> TeacherJudge:
    settings = {"model": "m", "base_url": server.url, "provider": "here", "temperature": 0.0, "keep_failed": True}
    prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
    return TeacherJudge(teacher=OpenAITeacher(**settings | prices | fields))


def _jsonl(path: Path, *records: Mapping[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def _pairwise(folder: Path, judge: Judge, **fields: Any) -> Pairwise:
    """Compare with answers that have stars, and win; the subject's have none."""
    other = _jsonl(folder / "other.jsonl", *({"text": one, "output": f"* {one}"} for one in QUESTIONS))
    settings: dict[str, Any] = {
        "prompts": {"v": _jsonl(folder / "v.jsonl", *({"text": one} for one in QUESTIONS))},
        "against": str(other),
        "judge": judge,
        "system": "",
        "request": "{mark} {question} <1>{answer_1}<2>{answer_2}",
        "store": folder / "store",
        "max_new_tokens": 8,
        "probes": PROBES,
    }
    return Pairwise(**settings | fields)


def _work(store: Store, key: str) -> Work:
    folder, scratch, _ = store.begin("evaluate", key)
    return Work(store=store, folder=folder, scratch=scratch)


def test_probes_tell_what_the_judge_falls_for_and_pay_once(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        evaluator = _pairwise(tmp_path, _judge(server))
        found = evaluator.evaluate(subject, work := _work(store, "1"))
        assert server.billed.total() == 2 * 3 * (1 + len(PROBES)) == round(work.notes["calls"]["usd_paid"] / USD)
        assert evaluator.evaluate(subject, _work(store, "2")) == found
        assert server.billed.total() == 18, "what was paid for was asked for again"
    assert (found["v/lose"], found["v/probe/references/judged"], found["v/probe/padding/judged"]) == (3, 3, 3)
    assert (found["v/probe/references/flips"], found["v/probe/padding/flips"]) == (1.0, 0.0)
    assert (found["v/probe/swapped/judged"], found["v/probe/swapped/changes"]) == (3, 0.0)
    lines = pq.read_table(work.folder / "probes.parquet").to_pylist()
    assert len(lines) == 12 and {line["probe"] for line in lines} == {*PROBES}
    assert {(line["decorated"], line["before"]) for line in lines} == {("own", "lose")}
    assert {line["verdict"] for line in lines if line["probe"] == "references"} == {"win"}


def test_probes_of_all_sets_are_told_together(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        evaluator = _pairwise(tmp_path, _judge(server), probe_rows=1)
        both = {**evaluator.prompts, "w": _jsonl(tmp_path / "w.jsonl", {"text": QUESTIONS[0]})}
        found = replace(evaluator, prompts=both).evaluate(subject, _work(store, "1"))
    assert [found[f"{name}/probe/padding/asked"] for name in ("v", "w", "all")] == [1, 1, 2]
    assert found["all/probe/references/flips"] == 1.0 and found["all/probe/swapped/judged"] == 4


def test_probes_that_are_not_asked_for_leave_the_free_one(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        found = _pairwise(tmp_path, _judge(server), probes=()).evaluate(subject, work := _work(store, "1"))
        assert server.billed.total() == 6
    assert {name.split("/")[2] for name in found if "/probe/" in name} == {"swapped"}
    assert not (work.folder / "probes.parquet").exists()


def test_probes_replies_that_cannot_be_read_are_counted(
    tmp_path: Path, store: Store, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyServer(text=_cannot_read_long_ones) as server:
        found = _pairwise(tmp_path, _judge(server), probes=("padding", "authority")).evaluate(
            subject, _work(store, "1")
        )
    assert (found["v/probe/padding/judged"], found["v/probe/padding/unjudged/refused"]) == (0, 3)
    assert "v/probe/padding/flips" not in found
    assert found["v/probe/authority/judged"] == found["v/judged"] == 3
    assert "probe padding: no figure (0 judged of 3 asked); no verdict: 3 refused" in capsys.readouterr().err


def test_probes_of_a_recording_without_them_are_a_reason_and_with_them_the_same(
    tmp_path: Path, store: Store, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        first = _pairwise(tmp_path, _judge(server)).evaluate(subject, work := _work(store, "1"))
    tables = [work.folder / f"{name}.parquet" for name in ("judgments", "probes")]
    without = _pairwise(tmp_path, ReplayJudge(paths=(tables[0],))).evaluate(subject, _work(store, "2"))
    probed = {name: value for name, value in without.items() if "/probe/references" in name}
    assert probed == {
        "v/probe/references/asked": 3,
        "v/probe/references/judged": 0,
        "v/probe/references/unjudged/not_recorded": 3,
    }
    assert {name: without[name] for name in without.keys() - probed if "/probe/padding" not in name} == {
        name: first[name] for name in first if not re.search("/probe/(references|padding)", name)
    }
    assert re.search(r"probe references: no figure .*no verdict: 3 not_recorded", capsys.readouterr().err)
    whole = ReplayJudge(paths=tuple(tables))
    assert _pairwise(tmp_path, whole).evaluate(subject, _work(store, "3")) == first


def test_probes_quote_is_guessed_before_and_exact_after_the_first_judgments(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        evaluator = _pairwise(tmp_path, _judge(server), probe_rows=2)
        untrained = evaluator.quote(None, store)
        assert (untrained.requests, untrained.calls, untrained.estimated) == (14, 14, 14)
        replace(evaluator, probes=()).evaluate(subject, _work(store, "1"))
        paid = server.billed.total()
        exact = evaluator.quote(subject, store)
        assert (exact.requests, exact.calls, exact.estimated) == (14, 8, 0) and server.billed.total() == paid
        evaluator.evaluate(subject, _work(store, "2"))
        assert server.billed.total() - paid == exact.calls
        assert evaluator.quote(subject, store).calls == 0


def test_probes_beyond_the_budget_lose_nothing_that_was_paid_for(
    tmp_path: Path, store: Store, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyServer(text=_falls_for_references) as server:
        small = _judge(server, budget_usd=8.5 * USD, max_tokens=330, concurrency=1)
        with pytest.raises(UserError, match=r"1 of 1 sets could not be judged.*budget"):
            _pairwise(tmp_path, small).evaluate(subject, _work(store, "1"))
        paid = server.billed.total()
        assert 6 < paid < 18 and "v: 0 win, 0 tie, 3 lose" in capsys.readouterr().err
        _pairwise(tmp_path, _judge(server, max_tokens=330)).evaluate(subject, _work(store, "1"))
        assert server.billed.total() == 18


def test_probes_unknown_or_named_twice_are_refused(tmp_path: Path) -> None:
    recording = ReplayJudge(paths=(_jsonl(tmp_path / "r.jsonl"),))
    with pytest.raises(ValidationError, match="'references', 'authority', 'formatting' or 'padding'"):
        _pairwise(tmp_path, recording, probes=("bribery",))
    with pytest.raises(ValidationError, match="padding stands twice"):
        _pairwise(tmp_path, recording, probes=("padding", "padding"))
