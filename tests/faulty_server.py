"""A chat server that fails on purpose: an OpenAI-style endpoint on raw sockets, in a thread of its own.

A seeded share of the requests ends in one of `FAULTS`, decided by the request and by how often it came, so that a run
is the same however its requests are ordered. It counts what a provider would bill: whole answers that it sent.
"""

import asyncio
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FAULTS = (
    "limit, told when",
    "limit, not told when",
    "server error",
    "unavailable",
    "reset before",
    "reset in the body",
    "cut body",
    "hang",
    "drip",
    "malformed",
    "html",
    "error as success",
    "no choices",
    "no text",
)
"""None of them is a whole answer, so none is billed."""

_USAGE = {"prompt_tokens": 700, "completion_tokens": 300, "total_tokens": 1000}


def reflection(body: Mapping[str, Any]) -> str:
    """Write a reflection as it was asked for: its words are a digest of the question's."""
    asked = body["messages"][-1]["content"]
    word = hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:12]
    if "[Better Answer]" in asked:
        return f"Too short.\n[Better Answer]\na better answer {word}\n[End]"
    return f"Too vague.\n[New Instruction]\nask {word}\n[End]\n[New Answer]\nanswer {word}\n[End]"


class FaultyServer:
    """Serves while the block runs. `rate` of the requests meet a fault; `latency` is seconds before any answer."""

    def __init__(
        self,
        *,
        rate: float = 0.0,
        faults: Sequence[str] = FAULTS,
        seed: int = 0,
        latency: float = 0.0,
        text: Callable[[Mapping[str, Any]], str] = reflection,
    ) -> None:
        """Nothing listens before the block is entered."""
        self._rate, self._faults, self._seed, self._latency, self._text = rate, faults, seed, latency, text
        self._came = Counter[str]()
        self.billed, self.failed = Counter[str](), Counter[str]()
        self.under_way = self.most_under_way = 0
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> "FaultyServer":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    def wait_until_quiet(self) -> None:
        """Wait until nothing is under way: a client that was killed has been noticed."""
        limit = time.monotonic() + 10
        while self.under_way:
            assert time.monotonic() < limit, f"{self.under_way} requests are still under way"
            time.sleep(0.01)

    async def _serve(self, ready: threading.Event) -> None:
        self._closed = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._closed.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                try:
                    if not await self._answer(body, reader, writer):
                        return
                finally:
                    self.under_way -= 1
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        key = json.dumps(body, sort_keys=True)
        self._came[key] += 1
        chance = random.Random(f"{self._seed} {key} {self._came[key]}")
        if self._latency:
            await asyncio.sleep(self._latency)
        if chance.random() < self._rate:
            fault = chance.choice(self._faults)
            self.failed[fault] += 1
            return await self._fault(fault, body, reader, writer)
        self.billed[key] += 1  # before the answer is out: who reads it runs in another thread
        try:
            # Some gateways name a field twice: readers take the last one.
            writer.write(_response(200, _completion(self._text(body), twice=chance.random() < 0.1)))
            await writer.drain()
        except OSError:
            self.billed[key] -= 1
            raise
        return True

    async def _fault(
        self, fault: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        whole = _response(200, _completion(self._text(body)))
        if fault == "hang":
            await reader.read(1)  # until the client goes away
            return False
        if fault == "drip":
            for place in range(len(whole) - 20):
                if reader.at_eof() or writer.is_closing():
                    return False
                writer.write(whole[place : place + 1])
                await asyncio.sleep(0.05)
            return False
        if fault in ("reset before", "reset in the body"):
            if fault == "reset in the body":
                writer.write(whole[: len(whole) // 2 + 40])
                await writer.drain()
                await asyncio.sleep(0.005)
            writer.transport.abort()
            return False
        if fault == "cut body":
            writer.write(whole[:-30])
            await writer.drain()
            return False
        writer.write(_PLAIN[fault])
        await writer.drain()
        return True


def _response(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = (f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(body)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _completion(text: str | None, twice: bool = False) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": _USAGE}
    written = json.dumps(whole)
    return (written[:-1] + f', "usage": {json.dumps(_USAGE)}}}' if twice else written).encode()


_PLAIN = {
    "limit, told when": _response(429, b'{"error": {"message": "slow down"}}', "retry-after-ms: 20"),
    "limit, not told when": _response(429, b'{"error": {"message": "slow down", "type": "rate_limit"}}'),
    "server error": _response(500, b"oops", kind="text/plain"),
    "unavailable": _response(503, b"", "retry-after: 0"),
    "malformed": _response(200, b'{"choices": [{"message": {"content": "half a'),
    "html": _response(200, b"<html>Bad gateway</html>", kind="text/html"),
    "error as success": _response(200, b'{"error": {"message": "upstream failed", "code": 502}}'),
    "no choices": _response(200, b'{"choices": [], "object": "chat.completion"}'),
    "no text": _response(200, _completion(None)),
}
