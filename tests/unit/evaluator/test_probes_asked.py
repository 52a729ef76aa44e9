"""Probes beside every judged result: asked of a real server, of a recording, quoted, and paid for once."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.judge import TeacherJudge
from srecycle.judge.replay import ReplayJudge
from srecycle.store import Store
from srecycle.student import Student
from srecycle.teacher.transformers import TransformersTeacher
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import (
    KINDS,
    QUESTIONS,
    USD,
    Kind,
    alpaca_eval,
    begun,
    jsonl,
    mt_bench,
    pairwise,
    prefers,
    scores,
    served_judge,
    shown,
    small_subject,
)

PROBES = ("references", "padding")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def test_probes_tell_what_the_judge_falls_for_and_pay_once(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    evaluator = kind.build(tmp_path, served_judge(server), probes=PROBES)
    found = evaluator.evaluate(subject, work := begun(store, "1"))
    calls = kind.calls + 2 * kind.questions * kind.a_case
    assert server.billed.total() == calls == round(work.notes["calls"]["usd_paid"] / USD)
    assert evaluator.evaluate(subject, begun(store, "2")) == found
    assert server.billed.total() == calls, "what was paid for was asked for again"
    figures = {name: found[f"{kind.head}/probe/references/{name}"] for name in ("asked", "judged", "flips", "changes")}
    assert figures == {"asked": kind.questions, "judged": kind.questions, "flips": 1.0, "changes": 1.0}
    assert found[f"{kind.head}/probe/padding/flips"] == found[f"{kind.head}/probe/padding/shift"] == 0
    lines = pq.read_table(work.folder / "probes.parquet").to_pylist()
    assert len(lines) == 2 * kind.questions * kind.a_case and {line["probe"] for line in lines} == {*PROBES}
    assert {line["decorated"] for line in lines} == {"own"}, "the others have stars, and won"
    assert all("[1] Smith" in str(line) for line in lines if line["probe"] == "references")


def test_probes_shift_is_in_the_unit_of_the_figure(tmp_path: Path, subject: Subject) -> None:
    shifts = {}
    for name, kind in KINDS.items():
        (tmp_path / name).mkdir()
        with FaultyServer(text=kind.told) as server:
            evaluator = kind.build(tmp_path / name, served_judge(server), probes=("references",))
            found = evaluator.evaluate(subject, work := begun(Store(tmp_path / name / "store"), "1"))
        shifts[name] = found[f"{kind.head}/probe/references/shift"]
        before = {line["before"] for line in pq.read_table(work.folder / "probes.parquet").to_pylist()}
        assert before == {"pairwise": {"lose"}, "alpaca_eval": {1.0}, "mt_bench": {4.0}}[name]
    assert shifts == {"pairwise": 2.0, "alpaca_eval": 1.0, "mt_bench": 4.0}


def test_probes_replies_that_cannot_be_read_are_counted(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(body: Mapping[str, Any]) -> str:
        return "I'm sorry, I can't." if "Needless to say" in shown(body) else kind.told(body)

    with FaultyServer(text=told) as server:
        evaluator = kind.build(tmp_path, served_judge(server), probes=("padding", "authority"))
        found = evaluator.evaluate(subject, begun(store, "1"))
    probe = f"{kind.head}/probe/padding"
    assert (found[f"{probe}/judged"], found[f"{probe}/unjudged/refused"]) == (0, kind.questions)
    assert f"{probe}/flips" not in found
    assert found[f"{kind.head}/probe/authority/judged"] == kind.questions
    count = kind.questions
    said = f"probe padding: no figure (0 judged of {count} asked); no verdict: {count} refused"
    assert said in capsys.readouterr().err


def test_probes_of_a_recording_without_them_are_a_reason_and_with_them_the_same(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    evaluator = kind.build(tmp_path, served_judge(server), probes=PROBES)
    first = evaluator.evaluate(subject, work := begun(store, "1"))
    tables = [work.folder / f"{name}.parquet" for name in ("judgments", "probes")]
    without = replace(evaluator, judge=ReplayJudge(paths=(tables[0],))).evaluate(subject, begun(store, "2"))
    probe = f"{kind.head}/probe/references/"
    counts = {"asked": kind.questions, "judged": 0, "unjudged/not_recorded": kind.questions}
    assert {name: value for name, value in without.items() if name.startswith(probe)} == {
        f"{probe}{name}": value for name, value in counts.items()
    }
    probed = re.compile("/probe/(references|padding)/")
    assert {name: value for name, value in without.items() if not probed.search(name)} == {
        name: value for name, value in first.items() if not probed.search(name)
    }
    whole = ReplayJudge(paths=tuple(tables))
    assert replace(evaluator, judge=whole).evaluate(subject, begun(store, "3")) == first


def test_probes_quote_is_guessed_before_and_exact_after_the_first_judgments(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    evaluator = kind.build(tmp_path, served_judge(server), probes=PROBES, probe_rows=1)
    whole, more = kind.calls + 2 * kind.a_case, 2 * kind.a_case
    untrained = evaluator.quote(None, store)
    assert untrained is not None and (untrained.requests, untrained.calls, untrained.estimated) == (whole,) * 3
    replace(evaluator, probes=()).evaluate(subject, begun(store, "1"))
    exact = evaluator.quote(subject, store)
    assert exact is not None and (exact.requests, exact.calls, exact.estimated) == (whole, more, 0)
    assert server.billed.total() == kind.calls
    evaluator.evaluate(subject, begun(store, "2"))
    assert server.billed.total() == whole
    known = evaluator.quote(subject, store)
    assert known is not None and known.calls == 0


def test_probes_quote_of_a_local_judge_asks_it_nothing(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Student(path=str(ROOT / "srecycle/testbed/bases/weak"), device="cpu", threads=1, max_length=128)
    judge = TeacherJudge(teacher=TransformersTeacher(model=student, temperature=0.0, max_tokens=8))
    monkeypatch.setattr(Student, "load", lambda self: pytest.fail("planning loads no model"))
    quote = kind.build(tmp_path, judge, probes=PROBES).quote(None, store)
    assert quote is not None and quote.calls == kind.calls + 2 * kind.questions * kind.a_case and quote.usd == 0


def test_probes_beyond_the_budget_lose_nothing_that_was_paid_for(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    whole = kind.calls + 2 * kind.questions * kind.a_case
    small = served_judge(server, budget_usd=(kind.calls + 1.5) * USD, max_tokens=330, concurrency=1)
    with pytest.raises(UserError, match="the budget is used up"):
        kind.build(tmp_path, small, probes=PROBES).evaluate(subject, begun(store, "1"))
    assert server.billed.total() == kind.calls + 1
    kind.build(tmp_path, served_judge(server, max_tokens=330), probes=PROBES).evaluate(subject, begun(store, "1"))
    assert server.billed.total() == whole


def test_probes_of_all_sets_are_told_together(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=scores) as server:
        evaluator = pairwise(tmp_path, served_judge(server), probes=PROBES, probe_rows=1)
        both = {**evaluator.prompts, "w": jsonl(tmp_path / "w.jsonl", {"text": QUESTIONS[0]})}
        found = replace(evaluator, prompts=both).evaluate(subject, begun(store, "1"))
    assert [found[f"{name}/probe/padding/asked"] for name in ("v", "w", "all")] == [1, 1, 2]
    assert found["all/probe/references/flips"] == 1.0 and found["all/probe/swapped/judged"] == 4


def test_probes_that_are_not_asked_for_leave_the_free_one_of_pairs(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=scores) as server:
        found = pairwise(tmp_path, served_judge(server)).evaluate(subject, work := begun(store, "1"))
        assert server.billed.total() == 6
    assert {name.split("/")[2] for name in found if "/probe/" in name} == {"swapped"}
    assert (found["v/probe/swapped/judged"], found["v/probe/swapped/changes"]) == (3, 0.0)
    assert not (work.folder / "probes.parquet").exists()


@pytest.mark.parametrize(("told", "flips"), [(lambda body: "1", 1.0), (prefers, 0.0)])
def test_probes_swapped_alpaca_eval_pairs_flip_where_the_judge_prefers_a_place(
    tmp_path: Path, store: Store, subject: Subject, told: Any, flips: float
) -> None:
    with FaultyServer(text=told) as server:
        evaluator = alpaca_eval(tmp_path, served_judge(server), probes=("swapped",))
        found = evaluator.evaluate(subject, work := begun(store, "1"))
        assert server.billed.total() == 6
    assert (found["v1/probe/swapped/judged"], found["v1/probe/swapped/flips"]) == (3, flips)
    assert found["v1/probe/swapped/changes"] == found["v1/probe/swapped/shift"] == flips
    tables = {name: pq.read_table(work.folder / f"{name}.parquet").to_pylist() for name in ("judgments", "probes")}
    for first, again in zip(tables["judgments"], tables["probes"], strict=True):
        assert (first["answer_1"], first["answer_2"]) == (again["answer_2"], again["answer_1"])
        assert again["own_first"] != first["own_first"] and again["decorated"] == (
            "own" if again["own_first"] else "other"
        )


def test_probes_unknown_named_twice_or_without_a_judge_are_refused(tmp_path: Path) -> None:
    recording = ReplayJudge(paths=(jsonl(tmp_path / "r.jsonl"),))
    for build in (pairwise, mt_bench):
        with pytest.raises(ValidationError, match="'references', 'authority', 'formatting' or 'padding'"):
            build(tmp_path, recording, probes=("swapped",))
    for kind in KINDS.values():
        with pytest.raises(ValidationError, match="padding stands twice"):
            kind.build(tmp_path, recording, probes=("padding", "padding"))
    with pytest.raises(ValidationError, match="annotations were made elsewhere"):
        alpaca_eval(tmp_path, recording, probes=("padding",), reference_outputs=None, annotations=tmp_path / "a.json")
