"""The chat teacher against a server that fails on purpose: complete, each row once, and nothing is paid for twice."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.teacher import Ledger
from srecycle.teacher.openai import OpenAITeacher
from tests.faulty_server import FAULTS, FaultyServer, reflection
from tests.unit.teacher.asking import requests


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setattr("srecycle.teacher.pace.FIRST_PAUSE", 0.02)
    monkeypatch.setattr("srecycle.teacher.pace.LONGEST_PAUSE", 0.2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path) as ledger:
        yield ledger


def _teacher(server: FaultyServer, **fields: Any) -> OpenAITeacher:
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 10.0}
    return OpenAITeacher(
        **({"model": "m", "base_url": server.url, "concurrency": 64, "timeout": 0.4, **prices} | fields)
    )


def _read(path: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute(query).fetchall()


def test_replies_two_thousand_with_a_fifth_failing_are_complete_and_paid_once(ledger: Ledger, path: Path) -> None:
    texts = [f"question {number}" for number in range(2000)]
    with FaultyServer(rate=0.2) as server:
        # A timeout that a busy machine doesn't meet by itself: such an attempt would be billed, and no fault.
        teacher = _teacher(server, attempts=12, timeout=2.0)
        shards = [requests(*texts[start : start + 500]) for start in range(0, 2000, 500)]
        with ThreadPoolExecutor(2) as pool:
            replies = [
                reply for shard in pool.map(lambda shard: teacher.replies(shard, ledger), shards) for reply in shard
            ]
        assert [reply.text for reply in replies] == [
            reflection({"messages": [{"role": "user", "content": text}]}) for text in texts
        ]
        assert all(reply.paid and reply.output_tokens == 300 for reply in replies)
        assert set(server.failed) == set(FAULTS), "a fault that never came was not tested"
        assert set(server.billed.values()) == {1} and len(server.billed) == 2000
        assert server.most_under_way <= 64 + server.failed["hang"] + server.failed["drip"]
        again = [reply for shard in shards for reply in teacher.replies(shard, ledger)]
        assert [reply.text for reply in again] == [reply.text for reply in replies]
        assert not any(reply.paid for reply in again) and server.billed.total() == 2000
    failures, replied, attempts, claims = (
        _read(path, f"SELECT {what}")[0][0]
        for what in (
            "count(*) FROM failures",
            "count(*) FROM replies",
            "sum(attempts) FROM replies",
            "count(*) FROM claims",
        )
    )
    assert (replied, claims) == (2000, 0)
    assert failures == server.failed.total() == attempts - 2000, "an attempt was not journalled"


@pytest.mark.parametrize("fault", FAULTS)
def test_replies_fault_is_journalled_under_its_name(fault: str, ledger: Ledger, path: Path) -> None:
    with FaultyServer(rate=1.0, faults=[fault]) as server:
        (reply,) = _teacher(server, attempts=2, keep_failed=True, timeout=0.2).replies(requests("a"), ledger)
    assert (reply.status, reply.text, reply.paid) == ("teacher_failed", "", False)
    ((status, error, usd), _) = _read(path, "SELECT status, error, usd FROM failures")
    expected = {"limit": 429, "server error": 500, "unavailable": 503, "no text": 200}
    assert status == expected.get(fault.partition(",")[0])
    assert error.startswith(
        {
            "limit": "429: ",
            "server error": "500: ",
            "unavailable": "503: ",
            "hang": "timeout: ",
            "drip": "timeout: ",
            "no text": "empty answer: ",
        }.get(fault.partition(",")[0], "unreachable: " if fault[:3] in ("res", "cut") else "unreadable answer: ")
    )
    assert usd == pytest.approx(700e-6 + 3000e-6 if fault == "no text" else 0.0)


_ASKING = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
sys.path.insert(0, sys.argv[3])
from srecycle.teacher import Ledger
from srecycle.teacher.openai import OpenAITeacher
from tests.unit.teacher.asking import requests
teacher = OpenAITeacher(model="m", base_url=sys.argv[1], concurrency=4, timeout=60)
with Ledger(Path(sys.argv[2])) as ledger:
    replies = teacher.replies(requests(*(f"question {number}" for number in range(40))), ledger)
print(sum(reply.paid for reply in replies), len(replies))
"""


def _asking(server: FaultyServer, path: Path) -> "subprocess.Popen[str]":
    root = str(Path(__file__).parents[3])
    return subprocess.Popen(
        [sys.executable, "-c", _ASKING, server.url, str(path), root],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_replies_two_processes_at_once_pay_once_for_what_both_want(path: Path) -> None:
    with FaultyServer(latency=0.1) as server:
        asking = [_asking(server, path) for _ in range(2)]
        told = [process.communicate(timeout=60) for process in asking]
        assert [process.returncode for process in asking] == [0, 0], told
        paid, answered = zip(*(map(int, out.split()) for out, _ in told), strict=True)
        assert answered == (40, 40) and sum(paid) == 40
        assert server.billed.total() == 40


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)])
def test_replies_interrupted_process_ends_soon_and_the_next_goes_on(path: Path, number: int, status: int) -> None:
    with FaultyServer(latency=0.2) as server:
        process = _asking(server, path)
        _until(lambda: server.billed.total() >= 8)
        process.send_signal(number)
        begun = time.monotonic()
        process.communicate(timeout=20)
        assert time.monotonic() - begun < 3 and process.returncode == status
        kept = _read(path, "SELECT count(*) FROM replies")[0][0]
        assert kept == server.billed.total() < 40, "what was under way came in, and nothing more was sent"
        assert _read(path, "SELECT count(*) FROM claims") == [(0,)]
        out, errors = (process := _asking(server, path)).communicate(timeout=60)
        assert process.returncode == 0, errors
        assert out.split() == [str(40 - kept), "40"]


def test_replies_interrupted_main_thread_drops_what_hangs(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr("srecycle.teacher.inquiry.GRACE", 0.3)
    with FaultyServer(rate=1.0, faults=["hang"]) as server, Ledger(path) as ledger:
        threading.Timer(0.5, signal.raise_signal, [signal.SIGINT]).start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            _teacher(server, timeout=60, concurrency=2).replies(requests(*"abcdef"), ledger)
        assert time.monotonic() - begun < 3
    errors = [error for (error,) in _read(path, "SELECT error FROM failures")]
    assert errors == ["dropped: the run was stopped before the answer came"] * 2
    assert _read(path, "SELECT count(*) FROM claims") == [(0,)]


def test_stop_ends_what_other_threads_wait_for(ledger: Ledger, path: Path) -> None:
    with FaultyServer(latency=0.2) as server, ThreadPoolExecutor(3) as pool:
        teacher = _teacher(server, concurrency=2, timeout=30)
        shards = [requests(*(f"{shard} {number}" for number in range(100))) for shard in range(3)]
        waiting = [pool.submit(teacher.replies, shard, ledger) for shard in shards]
        _until(lambda: server.billed.total() >= 4)
        begun = time.monotonic()
        teacher.interrupt()
        assert time.monotonic() - begun < 3
        for future in waiting:
            with pytest.raises(UserError, match="stopped with the run"):
                future.result()
        assert server.billed.total() < 20
        assert _read(path, "SELECT count(*) FROM replies") == [(server.billed.total(),)], "a reply was lost"
        assert len(teacher.replies(requests("afterwards"), ledger)) == 1


def test_replies_several_threads_share_one_teachers_concurrency(ledger: Ledger) -> None:
    with FaultyServer(latency=0.02) as server, ThreadPoolExecutor(4) as pool:
        teacher = _teacher(server, concurrency=6, timeout=30)
        shards = [requests(*(f"{shard} {number}" for number in range(30))) for shard in range(4)]
        list(pool.map(lambda shard: teacher.replies(shard, ledger), shards))
    assert server.most_under_way == 6 and server.billed.total() == 120


def test_replies_dead_server_stops_after_a_few_even_with_keep_failed(ledger: Ledger) -> None:
    with FaultyServer(rate=1.0, faults=["reset before"]) as server:
        teacher = _teacher(server, keep_failed=True, attempts=2, concurrency=4)
        with pytest.raises(UserError, match=r"left 8 requests in a row unanswered after 2 attempts each .unreachable"):
            teacher.replies(requests(*map(str, range(200))), ledger)
        assert server.failed.total() <= 2 * (8 + 4)


def test_replies_samples_of_one_request_are_paid_for_apart(ledger: Ledger, path: Path) -> None:
    with FaultyServer() as server:
        teacher = _teacher(server, seed=5)
        for sample in (0, 1, 1):
            teacher.replies(requests("a", sample=sample), ledger)
        assert server.billed.total() == 2
        assert _read(path, "SELECT sample, json_extract(request, '$.seed') FROM replies ORDER BY 1") == [(0, 5), (1, 6)]


def _until(holds: Any) -> None:
    limit = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.005)
