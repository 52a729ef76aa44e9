"""How fast requests to a teacher are answered, paid for and kept: `OpenAITeacher.replies` against a bare client.

    python experiments/bench/teacher.py [--quick] [--json FILE]

A local server answers every request after 50 ms, 64 at a time. Ours claims each request in the ledger, sends it,
commits its reply, and hands shards of 512 replies back, two shards in the air as with `engine.workers=2`; the baseline
is a loop over `AsyncOpenAI.chat.completions.create` that keeps nothing. Both take turns in this process; figures are
medians over the rounds. Then 50,000 requests (quick: 10,000) in one go show the memory: all of it is the asking side's,
since the server has a process of its own.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from srecycle.teacher import Ledger, Request
from srecycle.teacher.openai import OpenAITeacher

LATENCY, CONCURRENCY, SHARD, WORKERS = 0.05, 64, 512, 2
TARGET = 500
PROMPT, REPLY = "a word of the prompt " * 125, "a word of the reply " * 75
KEY_VARIABLE = "SRECYCLE_BENCH_KEY"


def main() -> None:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a run of less than a minute")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return asyncio.run(serve())
    os.environ[KEY_VARIABLE] = "none"
    rounds, requests, all_in_all = (3, 2_048, 10_000) if options.quick else (5, 6_144, 50_000)
    with server() as url, tempfile.TemporaryDirectory() as folder:
        bare, ours = [], []
        for turn in range(rounds):
            bare.append(requests / asyncio.run(bare_loop(url, requests)))
            ours.append(requests / sum(taken for _, taken in asked(url, Path(folder), f"round {turn}", requests)))
        memory, seconds = {}, 0.0
        for done, taken in asked(url, Path(folder), "memory", all_in_all):
            seconds += taken
            for mark in (all_in_all // 5, all_in_all * 3 // 5, all_in_all):
                if done >= mark and mark not in memory:
                    memory[mark] = resident_mebibytes()
    first, *_, last = memory.values()
    ratio = median(one / other for one, other in zip(ours, bare, strict=True))
    figures = {
        "requests_per_second": figure(median(ours), "1/s", median(bare), ratio),
        "requests_per_second_sustained": figure(all_in_all / seconds, "1/s", TARGET, all_in_all / seconds / TARGET),
        "resident_memory_end": figure(last, "MiB", first, last / first),
    }
    show(figures, memory, all_in_all, rounds, requests)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return None


def figure(value: float, unit: str, baseline: float, ratio: float) -> dict[str, Any]:
    """Return one figure as every benchmark writes it."""
    return {"value": round(value, 3), "unit": unit, "baseline": round(baseline, 3), "ratio": round(ratio, 4)}


def show(figures: dict[str, Any], memory: dict[int, float], total: int, rounds: int, requests: int) -> None:
    """Print the table."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{LATENCY * 1e3:.0f} ms latency, concurrency {CONCURRENCY}; {rounds} rounds of {requests} requests, medians\n"
    )
    rate, sustained = figures["requests_per_second"], figures["requests_per_second_sustained"]
    print(f"with the ledger     {rate['value']:8.0f} requests/s")
    print(f"bare AsyncOpenAI    {rate['baseline']:8.0f} requests/s   (ratio {rate['ratio']:.2f})")
    print(f"over {total:6} requests {sustained['value']:6.0f} requests/s   (target {TARGET})")
    for done, mebibytes in memory.items():
        print(f"resident after {done:6} {mebibytes:7.1f} MiB")


def asked(url: str, folder: Path, name: str, count: int) -> Iterator[tuple[int, float]]:
    """Answer `count` new requests in shards; yield how many are done, and the seconds since the last time."""
    teacher = OpenAITeacher(
        model="m",
        base_url=url,
        key_variable=KEY_VARIABLE,
        concurrency=CONCURRENCY,
        usd_per_million_input_tokens=0.4,
        usd_per_million_output_tokens=1.6,
    )
    with Ledger(folder / "ledger.sqlite") as ledger, ThreadPoolExecutor(WORKERS) as pool:

        def shard(start: int) -> int:
            places = range(start, min(start + SHARD, count))
            replies = teacher.replies([request(name, place) for place in places], ledger)
            assert all(reply.paid and reply.text == REPLY for reply in replies)
            return len(replies)

        done, last = 0, time.perf_counter()
        for future in as_completed([pool.submit(shard, start) for start in range(0, count, SHARD)]):
            done += future.result()
            now = time.perf_counter()
            yield done, now - last
            last = now


def request(name: str, place: int) -> Request:
    """Return a request that no other is equal to."""
    text = f"{name}, {place}. {PROMPT}"
    return Request(
        row_id=str(place),
        position=place,
        phase="response",
        base="original",
        instruction=text,
        response="",
        messages=[{"role": "system", "content": "You are a teacher."}, {"role": "user", "content": text}],
    )


async def bare_loop(url: str, count: int) -> float:
    """Send `count` requests and keep nothing; return the seconds."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key="none", base_url=url, max_retries=0) as client:
        places = iter(range(count))

        async def work() -> None:
            for place in places:
                completion = await client.chat.completions.create(
                    model="m",
                    messages=request("bare", place).messages,  # type: ignore[arg-type]
                    temperature=0.7,
                    max_completion_tokens=2048,
                )
                assert completion.choices[0].message.content == REPLY

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
        return time.perf_counter() - started


def resident_mebibytes() -> float:
    """Return this process's resident memory now."""
    import psutil

    return float(psutil.Process().memory_info().rss) / 2**20


@contextmanager
def server() -> Iterator[str]:
    """Run the server in a process of its own; yield its base URL."""
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()


async def serve() -> None:
    """Answer every request after the latency; print the port first."""
    usage = {"prompt_tokens": 700, "completion_tokens": 300, "total_tokens": 1000}
    choice = {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    body = json.dumps(whole).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    answer = head.encode() + body
    loop = asyncio.get_running_loop()

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            self.buffer = b""

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
                length = int(self.buffer[:end].lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                if len(self.buffer) < end + 4 + length:
                    return
                self.buffer = self.buffer[end + 4 + length :]
                loop.call_later(LATENCY, self.transport.write, answer)

    listening = await loop.create_server(Connection, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    main()
