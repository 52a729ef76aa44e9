"""A teacher as the judge: the ledger, the bill and the quote, against a server on this machine."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.judge import Case, TeacherJudge, asking
from srecycle.judge.parsing import read_pair
from srecycle.judge.quote import quoted
from srecycle.reflection.quote import PRIOR
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.student.model import Student
from srecycle.teacher import Reply
from srecycle.teacher.openai import OpenAITeacher
from srecycle.teacher.several import SeveralTeachers
from srecycle.teacher.transformers import TransformersTeacher
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer

BASE = ROOT / "srecycle/testbed/bases/weak"

USD = (700 * 2 + 300 * 10) / 1e6
"""A reply's price: the server's usage at the prices below."""


def _scores(body: Mapping[str, Any]) -> str:
    return f"8 7\n{body['messages'][-1]['content']}"


def _judge(server: FaultyServer, **fields: Any) -> TeacherJudge:
    settings = {"model": "m", "base_url": server.url, "provider": "here", "temperature": 0.0, "attempts": 2}
    prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
    return TeacherJudge(teacher=OpenAITeacher(**settings | prices | fields))


def _cases(*texts: str) -> list[Case]:
    return [
        Case(id=text, position=place, question=text, answers=("a", "b"), messages=[{"role": "user", "content": text}])
        for place, text in enumerate(texts)
    ]


def _work(store: Store, key: str = "k") -> Work:
    folder, scratch, _ = store.begin("evaluate", key)
    return Work(store=store, folder=folder, scratch=scratch)


def _asked(judge: TeacherJudge, work: Work, **sets: list[Case]) -> dict[str, list[Reply]]:
    with asking(judge, work) as ask:
        return {name: ask(cases, name) for name, cases in sets.items()}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


def test_asking_again_finds_everything_in_the_ledger_and_the_bill_says_so(store: Store) -> None:
    first, second = _work(store, "1"), _work(store, "2")
    with FaultyServer(text=_scores) as server:
        replies = _asked(_judge(server), first, one=_cases("a", "b"), two=_cases("b", "c"))
        assert server.billed.total() == 3
        again = _asked(_judge(server), second, one=_cases("c", "a", "b"))
        assert server.billed.total() == 3
    assert [reply.text for reply in replies["two"]] == ["8 7\nb", "8 7\nc"]
    assert [reply.text for reply in again["one"]] == ["8 7\nc", "8 7\na", "8 7\nb"]
    paid, found = first.notes["calls"], second.notes["calls"]
    assert (paid["replies"], paid["paid"]) == (4, 3) and paid["usd_paid"] == pytest.approx(3 * USD)
    assert (found["paid"], found["usd_paid"]) == (0, 0) and found["usd"] == pytest.approx(3 * USD)


def test_asking_one_set_that_fails_leaves_the_ledger_and_the_other_sets(store: Store) -> None:
    with FaultyServer(text=_scores) as server:
        judge = _judge(server, budget_usd=0.03, concurrency=1, max_tokens=1024)
        with asking(judge, work := _work(store)) as ask:
            assert len(ask(_cases("a"), "small")) == 1
            with pytest.raises(UserError, match="budget is used up"):
                ask(_cases(*"bcdefghij"), "large")
            assert ask(_cases("a"), "again")[0].text == "8 7\na"
        kept = server.billed.total()
        assert 1 < kept < 10
        _asked(_judge(server, max_tokens=1024), _work(store, "2"), all=_cases(*"abcdefghij"))
        assert server.billed.total() == 10, "what was paid for was asked for again"
    assert work.notes["calls"]["usd_paid"] >= USD


def test_asking_failed_judgments_have_a_reason_where_they_are_let_go(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srecycle.teacher.pace.LONGEST_PAUSE", 0.01)
    with FaultyServer(text=_scores, rate=0.5, faults=("server error",), seed=3) as server:
        judge = _judge(server, attempts=1, keep_failed=True)
        (replies,) = _asked(judge, _work(store), all=_cases(*"abcdefgh")).values()
    statuses = {reply.status for reply in replies}
    assert statuses == {"ok", "teacher_failed"}
    assert [reply.text for reply in replies if reply.status == "ok"] and not any(
        reply.text for reply in replies if reply.status != "ok"
    )


def test_asking_that_is_interrupted_stops_what_the_judge_is_at(store: Store) -> None:
    judge = _local_judge()
    with pytest.raises(KeyboardInterrupt), asking(judge, _work(store)):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="stopped with the run"):
        _asked(judge, _work(store, "2"), all=_cases("which is better"))


def test_judge_that_samples_is_refused() -> None:
    with pytest.raises(ValidationError, match="a judge should judge at temperature 0"):
        TeacherJudge(teacher=OpenAITeacher(model="m", temperature=0.7))
    with pytest.raises(ValidationError, match="asked once for each judgment"):
        TeacherJudge(teacher=OpenAITeacher(model="m", temperature=None, samples=2))
    several = SeveralTeachers(teachers={"one": OpenAITeacher(model="m", temperature=0.2)})
    with pytest.raises(ValidationError, match=r"teacher\.temperature=0\.2"):
        TeacherJudge(teacher=several)
    assert TeacherJudge(teacher=OpenAITeacher(model="m", temperature=None))


def test_judge_without_a_key_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        TeacherJudge(teacher=OpenAITeacher(model="m", temperature=0.0)).check()


def test_quote_counts_what_the_ledger_lacks_and_asks_nobody(store: Store) -> None:
    cases = _cases("a" * 40, "b" * 40, "a" * 40, "c" * 40)
    with FaultyServer(text=_scores) as server:
        judge = _judge(server)
        before = quoted(judge, cases)
        assert (before.requests, before.calls, before.found) == (4, 3, 1) and before.assumed
        tokens = 3 * 40 / PRIOR.characters_per_input_token
        written = 3 * PRIOR.output_tokens_per_reply
        assert before.usd == pytest.approx((tokens * 2 + written * 10) / 1e6) == before.usd_at_most
        assert server.billed.total() == 0
        _asked(judge, _work(store), some=cases[:2])
        after = quoted(judge, cases, store, estimated=1)
        assert (after.requests, after.calls, after.found, after.estimated) == (4, 1, 3, 1)
        assert after.output_tokens == 300 and not after.assumed
        assert server.billed.total() == 2


def _local_judge() -> TeacherJudge:
    student = Student(path=str(BASE), device="cpu", threads=1, max_length=128)
    return TeacherJudge(teacher=TransformersTeacher(model=student, temperature=0.0, max_tokens=8))


def test_local_model_judges_and_its_noise_is_no_score(store: Store) -> None:
    (replies,) = _asked(_local_judge(), _work(store), all=_cases("which is better", "and here")).values()
    assert all(reply.text and reply.usd == 0 for reply in replies)
    assert all(read_pair(reply.text, reply.finish_reason).status != "ok" for reply in replies)
