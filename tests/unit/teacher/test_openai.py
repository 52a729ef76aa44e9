"""The chat teacher against a real server on this machine: retries, refusals, the ledger, and the key's secrecy."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.teacher import Ledger, Reply
from srecycle.teacher.openai import OpenAITeacher
from tests.unit.teacher.asking import requests

KEY = "sk-secret-of-this-test"
Answer = tuple[int, dict[str, str], bytes] | None
"""Status, headers and body; None breaks the connection off."""


class Server:
    """Answers each request with `answer(body, number of this very request so far)`, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answer: Callable[[dict[str, Any], int], Answer] = lambda body, attempt: good(body)
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.bodies.append(body)
            self.keys.add(handler.headers.get("authorization"))
            attempt = self.bodies.count(body)
        answer = self.answer(body, attempt)
        if answer is None:
            handler.connection.close()
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(content))} | headers
        ).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)


def good(body: dict[str, Any]) -> Answer:
    completion = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": f"re: {body['messages'][0]['content']}"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }
    return 200, {}, json.dumps(completion).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


def _teacher(server: Server, **fields: Any) -> OpenAITeacher:
    return OpenAITeacher(
        **(
            {
                "model": "m",
                "base_url": server.url,
                "attempts": 3,
                "concurrency": 4,
                "usd_per_million_input_tokens": 0.15,
                "usd_per_million_output_tokens": 2.0,
            }
            | fields
        )
    )


def _failures(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [error for (error,) in connection.execute("SELECT error FROM failures ORDER BY attempt")]


def test_replies_come_in_the_order_of_the_requests_with_their_price(server: Server, ledger: Ledger) -> None:
    replies = _teacher(server).replies(requests(*"abcdefgh"), ledger)
    assert [reply.text for reply in replies] == [f"re: {text}" for text in "abcdefgh"]
    assert replies[0] == Reply(
        text="re: a",
        finish_reason="stop",
        paid=True,
        input_tokens=1000,
        output_tokens=100,
        usd=pytest.approx(1000 * 0.15e-6 + 100 * 2e-6),
        teacher="m",
    )


def test_replies_request_holds_the_configured_fields_only(server: Server, ledger: Ledger) -> None:
    _teacher(server, temperature=None, max_tokens=7, max_tokens_field="max_tokens", seed=3).replies(
        requests("a"), ledger
    )
    assert server.bodies == [{"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 7, "seed": 3}]
    assert server.keys == {f"Bearer {KEY}"}


def test_replies_second_time_ask_and_pay_nothing(server: Server, ledger: Ledger) -> None:
    first = _teacher(server).replies(requests("a", "b"), ledger)
    server.bodies.clear()
    second = _teacher(server).replies(requests("b", "a"), ledger)
    assert server.bodies == []
    assert [reply.text for reply in second] == [first[1].text, first[0].text]
    assert not any(reply.paid for reply in second)
    _teacher(server, temperature=0.1).replies(requests("a"), ledger)
    assert len(server.bodies) == 1


def test_replies_equal_requests_are_asked_and_paid_for_once(server: Server, ledger: Ledger) -> None:
    replies = _teacher(server).replies(requests("a", "b", "a", "a"), ledger)
    assert len(server.bodies) == 2
    assert [reply.text for reply in replies] == ["re: a", "re: b", "re: a", "re: a"]
    assert [reply.paid for reply in replies] == [True, True, False, False]


TRANSIENT: dict[str, Answer] = {
    "rate limit": (429, {"Retry-After": "0"}, b'{"error": {"message": "slow down"}}'),
    "server error": (500, {"Retry-After": "0"}, b"oops"),
    "unavailable": (503, {"Retry-After": "0"}, b""),
    "request timeout": (408, {"Retry-After": "0"}, b"{}"),
    "broken connection": None,
    "malformed json": (200, {}, b'{"choices": ['),
    "no json": (200, {"Content-Type": "text/html"}, b"<html>"),
    "no choices": (200, {}, b'{"choices": [], "object": "chat.completion"}'),
    "no message": (200, {}, b'{"choices": [{"index": 0, "finish_reason": "stop", "message": null}]}'),
    "null": (200, {}, b"null"),
}


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srecycle.teacher.pace.LONGEST_PAUSE", 0.01)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("case", TRANSIENT)
def test_replies_passing_trouble_is_tried_again(server: Server, ledger: Ledger, tmp_path: Path, case: str) -> None:
    server.answer = lambda body, attempt: TRANSIENT[case] if attempt < 3 else good(body)
    (reply,) = _teacher(server).replies(requests("a"), ledger)
    assert (reply.text, reply.status, len(server.bodies)) == ("re: a", "ok", 3)
    assert len(_failures(tmp_path / "ledger.sqlite")) == 2


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("case", TRANSIENT)
def test_replies_lasting_trouble_ends_the_run_and_is_asked_again_later(
    server: Server, ledger: Ledger, case: str
) -> None:
    server.answer = lambda body, attempt: TRANSIENT[case] if "a" in body["messages"][0]["content"] else good(body)
    with pytest.raises(UserError, match="left 1 of 2 requests unanswered"):
        _teacher(server).replies(requests("a", "b"), ledger)
    replies = _teacher(server, keep_failed=True).replies(requests("a", "b"), ledger)
    assert [(reply.text, reply.status, reply.paid) for reply in replies] == [
        ("", "teacher_failed", False),
        ("re: b", "ok", False),
    ]
    server.answer = lambda body, attempt: good(body)
    replies = _teacher(server).replies(requests("a", "b"), ledger)
    assert [(reply.text, reply.paid) for reply in replies] == [("re: a", True), ("re: b", False)]


FINAL = {
    400: r"can't take the request of row a \(position 0, response phase\) for model m \(400\).*keep_failed=true",
    401: r"does not accept the key in OPENAI_API_KEY \(401\)",
    402: r"has no money left for this key \(402\)",
    403: r"does not allow this key to use m \(403\)",
    404: r"knows no model m, or has no such address \(404\).*teacher.base_url",
    405: r"refused a request for model m \(405\)",
    422: r"can't take the request of row a",
}


@pytest.mark.parametrize("status", FINAL)
def test_replies_final_refusal_stops_at_once_with_one_line(server: Server, ledger: Ledger, status: int) -> None:
    content = json.dumps({"error": {"message": f"no such thing\nas {KEY}"}}).encode()
    server.answer = lambda body, attempt: (status, {}, content)
    with pytest.raises(UserError, match=FINAL[status]) as refused:
        _teacher(server, concurrency=1).replies(requests(*"abcdef"), ledger)
    assert len(server.bodies) == 1
    assert "no such thing as (the key)" in str(refused.value)
    assert "\n" not in str(refused.value) and KEY not in str(refused.value)


def test_replies_key_is_in_no_file(server: Server, ledger: Ledger, tmp_path: Path) -> None:
    def answer(body: dict[str, Any], attempt: int) -> Answer:
        if attempt == 1:
            return 500, {"Retry-After": "0"}, json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
        return good(body)

    server.answer = answer
    _teacher(server).replies(requests("a"), ledger)
    written = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "ledger.sqlite" in written
    assert not [name for name, content in written.items() if KEY.encode() in content]
    assert any(b"re: a" in content for content in written.values())


def test_check_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch, ledger: Ledger) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="environment variable OPENAI_API_KEY"):
        OpenAITeacher(model="m").check()
    with pytest.raises(UserError, match="environment variable MY_KEY"):
        OpenAITeacher(model="m", key_variable="MY_KEY").replies(requests("a"), ledger)


def test_replies_all_in_the_ledger_need_no_key(server: Server, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    _teacher(server).replies(requests("a"), ledger)
    monkeypatch.delenv("OPENAI_API_KEY")
    assert _teacher(server).replies(requests("a"), ledger)[0].text == "re: a"


@pytest.mark.parametrize("url", ["https://user:secret@example.org/v1", "localhost:8000/v1", "ftp://example.org"])
def test_base_url_without_scheme_or_with_a_password_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        OpenAITeacher(model="m", base_url=url)


def test_identity_names_the_provider_and_neither_url_nor_prices() -> None:
    one = OpenAITeacher(model="m", base_url="https://example.org:8000/v1")
    assert identity(one)["provider"] == "example.org:8000"
    moved = OpenAITeacher(model="m", base_url="http://other/v1", provider="example.org:8000", concurrency=1)
    assert identity(one) == identity(moved)
    assert identity(OpenAITeacher(model="m"))["provider"] == "api.openai.com"
    assert identity(OpenAITeacher(model="m")) != identity(OpenAITeacher(model="m", temperature=0.0))
