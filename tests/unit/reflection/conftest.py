"""A chat server on this machine that answers as a test tells it to, and what asks it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from srecycle.reflection import Reflection
from srecycle.teacher.openai import OpenAITeacher

Messages = list[dict[str, str]]


class ChatServer:
    """Answers with `reply(messages)`: the text and the finish reason. Remembers what it was sent."""

    def __init__(self) -> None:
        self.reply: Callable[[Messages], tuple[str, str]] = lambda messages: ("[Better Answer]\nA\n[End]", "stop")
        self.sent: list[Messages] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def teacher(self, **settings: Any) -> OpenAITeacher:
        """Return a teacher that asks this server, at prices that are easy to count with."""
        prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
        url = f"http://127.0.0.1:{self.http.server_port}/v1"
        return OpenAITeacher(model="m", base_url=url, provider="here", attempts=1, **prices | settings)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        messages = json.loads(handler.rfile.read(int(handler.headers["content-length"])))["messages"]
        self.sent.append(messages)
        text, finish_reason = self.reply(messages)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        completion = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        content = json.dumps(completion | {"choices": [choice], "usage": usage}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    server = ChatServer()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def wording() -> Reflection:
    return Reflection(
        system="s" * 8,
        instruction_request="{instruction}{response}{context_block}{score_block}",
        response_request="{instruction}{response}{context_block}{score_block}",
        input_block="",
        history_block="",
        reference_block="|known {reference}",
        verdict_block="|checked {verdict}",
        score_block="|{criteria}",
        instruction_criteria=(),
        response_criteria=("accuracy", "relevance"),
    )
