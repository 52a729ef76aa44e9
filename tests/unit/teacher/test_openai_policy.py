"""What the chat teacher does about refusals, budgets and odd answers, against the server of test_openai."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.teacher import Ledger
from srecycle.teacher.completion import blotted, read_completion
from srecycle.teacher.openai import OpenAITeacher
from srecycle.teacher.refusal import trouble_of
from tests.unit.teacher.asking import requests
from tests.unit.teacher.test_openai import Answer, Server, _teacher, good, ledger, server

__all__ = ["ledger", "server"]  # fixtures

BAD = 400, {}, b'{"error": {"message": "too long"}}'
COST = 1000 * 0.15e-6 + 100 * 2e-6
"""Dollars of one reply of `good`."""


def _texts(count: int) -> list[str]:
    return [f"{number:03}" for number in range(count)]


def test_replies_with_keep_failed_refused_rows_go_on_with_their_reason(server: Server, ledger: Ledger) -> None:
    server.answer = lambda body, attempt: BAD if body["messages"][0]["content"] in "ac" else good(body)
    replies = _teacher(server, keep_failed=True).replies(requests(*"abcd"), ledger)
    assert [reply.status for reply in replies] == ["teacher_refused", "ok", "teacher_refused", "ok"]
    assert len(server.bodies) == 4, "a refused request is not asked again"


@pytest.mark.parametrize("known", [False, True])
def test_replies_first_requests_all_refused_stop_even_with_keep_failed(
    server: Server, ledger: Ledger, known: bool
) -> None:
    teacher = _teacher(server, keep_failed=True, concurrency=1, provider=f"known {known}")
    if known:
        teacher.replies(requests("known"), ledger)
    server.answer = lambda body, attempt: BAD
    asked = requests("known", *_texts(20))
    if known:  # the server takes such requests, so these rows are to blame
        assert [reply.status for reply in teacher.replies(asked, ledger)] == ["ok"] + ["teacher_refused"] * 20
    else:
        with pytest.raises(UserError, match=r"can't take the request of row .*too long"):
            teacher.replies(asked, ledger)
        assert len(server.bodies) == 8


@pytest.mark.parametrize("status", [401, 403, 404])
def test_replies_refusals_of_everything_stop_even_with_keep_failed(server: Server, ledger: Ledger, status: int) -> None:
    server.answer = lambda body, attempt: (status, {}, b"{}")
    with pytest.raises(UserError, match=f"{status}"):
        _teacher(server, keep_failed=True, concurrency=2).replies(requests(*_texts(50)), ledger)
    assert len(server.bodies) <= 2


@pytest.mark.parametrize("place", ["code", "type"])
def test_replies_no_money_left_stops_and_is_not_asked_again(server: Server, ledger: Ledger, place: str) -> None:
    content = json.dumps({"error": {"message": "you exceeded your quota", place: "insufficient_quota"}}).encode()
    server.answer = lambda body, attempt: (429, {"Retry-After": "0"}, content)
    with pytest.raises(UserError, match=r"has no money left for this key .402.: .*exceeded your quota"):
        _teacher(server, keep_failed=True, concurrency=1).replies(requests(*"abc"), ledger)
    assert len(server.bodies) == 1


def test_replies_very_long_pause_stops_with_its_length(server: Server, ledger: Ledger) -> None:
    server.answer = lambda body, attempt: (429, {"Retry-After": "86400"}, b"{}")
    with pytest.raises(UserError, match="asks to come back in 86400 s"):
        _teacher(server).replies(requests("a"), ledger)


def test_replies_limit_for_one_pauses_all(server: Server, ledger: Ledger) -> None:
    moments: list[tuple[str, float]] = []

    def answer(body: dict[str, Any], attempt: int) -> Answer:
        moments.append((body["messages"][0]["content"], time.monotonic()))
        return (429, {"Retry-After": "0.6"}, b"{}") if len(moments) == 1 else good(body)

    server.answer = answer
    _teacher(server, concurrency=1).replies(requests(*"abcdef"), ledger)
    first = moments[0][1]
    assert all(moment - first >= 0.6 for _, moment in moments[1:])
    assert sorted(text for text, _ in moments) == sorted("aabcdef")


def test_replies_limits_of_others_do_not_use_up_a_rows_attempts(server: Server, ledger: Ledger) -> None:
    def answer(body: dict[str, Any], attempt: int) -> Answer:
        slow = body["messages"][0]["content"] == "slow" and attempt <= 8
        time.sleep(0.01)
        return (429, {"Retry-After": "0.02"}, b"{}") if slow else good(body)

    server.answer = answer
    replies = _teacher(server, attempts=2, concurrency=2).replies(requests("slow", *_texts(400)), ledger)
    assert all(reply.status == "ok" for reply in replies)


MESSAGES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "refusal": ({"content": None, "refusal": "I can't help with that."}, "stop", "I can't help with that."),
    "cut in its reasoning": ({"content": None}, "length", ""),
    "filtered": ({"content": None}, "content_filter", ""),
    "parts": ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "stop", "ab"),
    "empty": ({"content": ""}, "stop", ""),
    "lone surrogate": ({"content": "a\ud800b"}, "stop", "a?b"),
    "nothing": ({"content": None}, "stop", None),
    "number": ({"content": 3}, "stop", None),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_replies_odd_message_is_kept_where_it_is_an_answer(server: Server, ledger: Ledger, case: str) -> None:
    message, finish_reason, text = MESSAGES[case]
    usage = {"prompt_tokens": 1000, "completion_tokens": 100}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    server.answer = lambda body, attempt: (200, {}, json.dumps({"choices": [choice], "usage": usage}).encode())
    (reply,) = _teacher(server, attempts=1, keep_failed=True).replies(requests("a"), ledger)
    if text is None:
        assert (reply.status, reply.text) == ("teacher_failed", "")
        assert ledger.spent(_teacher(server).served_by) == pytest.approx(COST), "it was paid all the same"
    else:
        assert (reply.status, reply.text, reply.finish_reason) == ("ok", text, finish_reason)


@pytest.mark.parametrize(("total", "output"), [(1100, 100), (1150, 150), (None, 100)])
def test_replies_reasoning_tokens_are_recorded_apart(
    server: Server, ledger: Ledger, tmp_path: Path, total: int | None, output: int
) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "completion_tokens_details": {"reasoning_tokens": 50}}
    whole = json.loads((good({"messages": [{"content": "a"}]}) or (0, {}, b""))[2])
    whole["usage"] = usage | ({"total_tokens": total} if total else {})
    server.answer = lambda body, attempt: (200, {}, json.dumps(whole).encode())
    (reply,) = _teacher(server).replies(requests("a"), ledger)
    assert reply.output_tokens == output
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        assert connection.execute("SELECT output_tokens, reasoning_tokens FROM replies").fetchall() == [(output, 50)]


def test_replies_budget_stops_before_it_is_passed_and_goes_on_with_more(server: Server, ledger: Ledger) -> None:
    asked, provider = requests(*_texts(200)), _teacher(server).served_by
    budget = 40 * COST
    with pytest.raises(UserError, match=r"the budget is used up: .* run again with a higher teacher\.budget_usd"):
        _teacher(server, budget_usd=budget, max_tokens=200).replies(asked, ledger)
    spent, sent = ledger.spent(provider), len(server.bodies)
    assert spent == pytest.approx(sent * COST) and budget - 2 * COST < spent <= budget
    with pytest.raises(UserError, match="the budget is used up"):
        _teacher(server, budget_usd=budget, max_tokens=200).replies(asked, ledger)
    assert len(server.bodies) == sent
    replies = _teacher(server, budget_usd=1.0, max_tokens=200).replies(asked, ledger)
    assert sum(reply.paid for reply in replies) == 200 - sent and len(server.bodies) == 200


def test_replies_budget_warns_once(server: Server, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = _teacher(server, budget_usd=1.0, budget_warn=0.01)
    for start in range(0, 120, 40):
        teacher.replies(requests(*_texts(120)[start : start + 40]), ledger)
    assert capsys.readouterr().err.count("of teacher.budget_usd=1 are spent with 127.0.0.1") == 1


def test_replies_budget_counts_what_other_processes_have_in_flight(server: Server, ledger: Ledger) -> None:
    teacher = _teacher(server, budget_usd=100 * COST)
    ledger.claim({"other": 99.9 * COST}, provider=teacher.served_by)
    begun = time.monotonic()
    import threading

    threading.Timer(0.7, ledger.release, [["other"]]).start()
    (reply,) = teacher.replies(requests("a"), ledger)
    assert reply.paid and time.monotonic() - begun >= 0.7


def test_replies_budget_without_usage_stops(server: Server, ledger: Ledger) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}]}
    server.answer = lambda body, attempt: (200, {}, json.dumps(whole).encode())
    with pytest.raises(UserError, match="tells no token usage"):
        _teacher(server, budget_usd=1.0, concurrency=1).replies(requests(*"abc"), ledger)
    assert len(server.bodies) == 1
    assert [reply.paid for reply in _teacher(server).replies(requests("a"), ledger)] == [False], "the reply is kept"


def test_check_budget_without_prices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(UserError, match="both prices are 0"):
        OpenAITeacher(model="m", budget_usd=1.0).check()
    OpenAITeacher(model="m", budget_usd=1.0, usd_per_million_output_tokens=1.0).check()


def test_replies_extra_body_is_sent_and_part_of_key_and_identity(server: Server, ledger: Ledger) -> None:
    plain, extra = _teacher(server), _teacher(server, extra_body={"top_k": 3, "chat": {"thinking": False}})
    for teacher in (plain, extra):
        assert teacher.replies(requests("a"), ledger)[0].paid
    assert server.bodies[1] == server.bodies[0] | {"top_k": 3, "chat": {"thinking": False}}
    assert identity(plain) != identity(extra)


@pytest.mark.parametrize("name", ["model", "messages", "temperature", "max_tokens", "stream", "n", "seed"])
def test_extra_body_with_a_field_of_its_own_setting_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="extra_body"):
        OpenAITeacher(model="m", extra_body={name: 1})


def test_outstanding_is_what_would_be_paid_for_now(server: Server, ledger: Ledger) -> None:
    teacher = _teacher(server)
    teacher.replies(requests("a", "b"), ledger)
    outstanding = teacher.outstanding(requests("a", "c", "c", "d"), ledger)
    assert [request.instruction for request in outstanding] == ["c", "d"] and len(server.bodies) == 2


def test_rates_are_means_of_this_model_only(server: Server, ledger: Ledger) -> None:
    teacher = _teacher(server)
    assert teacher.rates(ledger) is None
    teacher.replies(requests("a" * 2000, "b" * 4000), ledger)
    rates = teacher.rates(ledger)
    assert rates is not None
    assert (rates.replies, rates.characters_per_input_token, rates.output_tokens_per_reply) == (2, 3.0, 100.0)
    assert rates.calls_per_second > 0
    assert _teacher(server, model="other").rates(ledger) is None


def test_check_samples_at_temperature_zero_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    for fields in ({"temperature": 0.0}, {"samples": 3}, {"samples": 3, "temperature": None}):
        OpenAITeacher(model="m", **fields).check()  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"teacher\.samples=3 at temperature 0.*set a temperature above 0"):
        OpenAITeacher(model="m", samples=3, temperature=0.0).check()


@pytest.mark.parametrize(("secret", "shown"), [("sk-longer-than-that", "(the key)"), ("x", "x"), ("none", "none")])
def test_blotted_key_is_gone_and_a_word_that_guards_nothing_stays(secret: str, shown: str) -> None:
    assert blotted(f"it does not exist: {secret}", secret) == f"it does not exist: {shown}"


def test_read_completion_of_no_json_keeps_all_of_it_for_the_key_to_be_found_in() -> None:
    secret = "sk-" + "k" * 40
    with pytest.raises(ValueError, match="is no JSON") as wrong:
        read_completion(b"<html>" + b" " * 180 + secret.encode())
    assert secret not in trouble_of(wrong.value, secret).told and "sk-" not in trouble_of(wrong.value, secret).told
