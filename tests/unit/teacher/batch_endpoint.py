"""A local Batch API: files, batches and their faults, as a real HTTP server.

python -m tests.unit.teacher.batch_endpoint    is not a command: tests start `Endpoint()` in a thread.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Line = dict[str, Any]


def completion(body: Line) -> Line:
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": f"re: {body['messages'][0]['content']}"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
    }


def good(line: Line) -> Line | None:
    """Answer a line of a batch's input."""
    return {"custom_id": line["custom_id"], "response": {"status_code": 200, "body": completion(line["body"])}}


def bad(line: Line, status: int, code: str = "oops") -> Line:
    """Answer a line with an error, as the error file has it."""
    error = {"code": code, "message": f"no {line['body']['messages'][0]['content']}"}
    return {"custom_id": line["custom_id"], "response": {"status_code": status, "body": {"error": error}}}


@dataclass
class Endpoint:
    """A server in a thread of its own.

    `answer` decides a line's fate (None: the batch leaves it), `status` how the nth batch ends after so many `looks`,
    `trouble` what a call gets instead of its answer: a status; or None, which breaks the connection off after the call
    took effect; or anything else for no trouble.
    """

    answer: Callable[[Line], Line | None] = good
    status: Callable[[int], str] = lambda number: "completed"
    trouble: Callable[[str, str], int | str | None] = lambda method, path: "none"
    looks: int = 1
    errors: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Line] = {}
        self.cancelled: list[str] = []
        self.calls: list[str] = []
        self.on_create: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer._handle(self, "GET")

            def do_POST(self) -> None:
                outer._handle(self, "POST")

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"

    @property
    def asked(self) -> list[list[str]]:
        """What each batch asked, in the order of the batches."""
        return [
            [
                json.loads(line)["body"]["messages"][0]["content"]
                for line in self.files[one["input_file_id"]].splitlines()
            ]
            for one in self.batches.values()
        ]

    def _handle(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        content = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        path = urlsplit(handler.path).path.removeprefix("/v1")
        with self._lock:
            self.calls.append(f"{method} {path}")
            trouble = self.trouble(method, path)
            if isinstance(trouble, int):
                return self._send(handler, trouble, b'{"error": {"message": "trouble"}}')
            answer = self._answer(method, path, handler, content)
        if trouble is None:
            handler.connection.close()
            return None
        return self._send(handler, 200 if answer is not None else 404, answer or b'{"error": {"message": "unknown"}}')

    def _send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _answer(self, method: str, path: str, handler: BaseHTTPRequestHandler, content: bytes) -> bytes | None:
        if (method, path) == ("POST", "/files"):
            return self._uploaded(content)
        if found := re.fullmatch(r"/files/([\w-]+)/content", path):
            return self.files.get(found[1])
        if (method, path) == ("POST", "/batches"):
            return self._created(json.loads(content))
        if path == "/batches":
            return self._listed(parse_qs(urlsplit(handler.path).query))
        if found := re.fullmatch(r"/batches/([\w-]+)/cancel", path):
            self.cancelled.append(found[1])
            return json.dumps(self._shown(self.batches[found[1]])).encode()
        if (found := re.fullmatch(r"/batches/([\w-]+)", path)) and found[1] in self.batches:
            batch = self.batches[found[1]]
            batch["looks"] += 1
            if batch["looks"] > self.looks and batch["status"] == "in_progress":
                self._end(batch)
            return json.dumps(self._shown(batch)).encode()
        return None

    def _uploaded(self, content: bytes) -> bytes:
        found = re.search(rb'name="file"; filename="([^"]+)"\r\n.*?\r\n\r\n(.*?)\r\n--', content, re.DOTALL)
        assert found is not None and b"batch" in content
        identifier = f"file-{len(self.files)}"
        self.files[identifier] = found[2]
        shown = {"id": identifier, "object": "file", "purpose": "batch", "filename": found[1].decode()}
        return json.dumps(
            {**shown, "bytes": len(found[2]), "created_at": int(time.time()), "status": "processed"}
        ).encode()

    def _created(self, asked: Line) -> bytes:
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        identifier = f"batch_{len(self.batches)}"
        self.batches[identifier] = asked | {
            "id": identifier,
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "looks": 0,
        }
        self.on_create()
        return json.dumps(self._shown(self.batches[identifier])).encode()

    def _listed(self, query: dict[str, list[str]]) -> bytes:
        newest_first = list(reversed(self.batches.values()))
        if after := query.get("after"):
            newest_first = newest_first[[one["id"] for one in newest_first].index(after[0]) + 1 :]
        limit = min(int(query.get("limit", ["20"])[0]), 2)  # small pages, so that a lookup has to turn them
        shown = [self._shown(one) for one in newest_first[:limit]]
        return json.dumps({"object": "list", "data": shown, "has_more": len(newest_first) > limit}).encode()

    def _shown(self, batch: Line) -> Line:
        lines = len(self.files[batch["input_file_id"]].splitlines())
        counts = {"total": lines, "completed": lines if batch["status"] == "completed" else 0, "failed": 0}
        return {name: value for name, value in batch.items() if name != "looks"} | {"request_counts": counts}

    def _end(self, batch: Line) -> None:
        batch["status"] = self.status(int(batch["id"].removeprefix("batch_")))
        if batch["status"] == "failed":
            batch["errors"] = {"object": "list", "data": self.errors}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answers = [answer for line in reversed(lines) if (answer := self.answer(line)) is not None]
        for name, wanted in (("output", True), ("error", False)):
            some = [one for one in answers if ((one.get("response") or {}).get("status_code") == 200) == wanted]
            if some:
                identifier = f"file-{batch['id']}-{name}"
                self.files[identifier] = "".join(json.dumps(one) + "\n" for one in some).encode()
                batch[f"{name}_file_id"] = identifier
