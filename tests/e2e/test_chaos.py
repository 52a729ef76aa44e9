"""kill -9 at random moments of the whole chain, with one, two and four processes on one store, and broken stores.

Whatever is killed and how often, the same command ends in the same bytes, and no reply that was kept is paid for again.
`SRECYCLE_CHAOS_RUNS=30` kills more runs than a test needs to; `pytest -s` shows what was counted.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.conftest import command, contents, paid_requests
from tests.faulty_server import FaultyServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RUNS = int(os.environ.get("SRECYCLE_CHAOS_RUNS", "3"))
ROWS = 64


def settings(server: FaultyServer) -> tuple[str, ...]:
    """Return the chain at a size at which every stage can be met by a kill."""
    return (
        f"data.count={ROWS}",
        "teacher=openai",
        "teacher.model=m",
        f"teacher.base_url={server.url}",
        "teacher.concurrency=4",
        "engine.shard_rows=8",
        "keep=[none]",
        "trainer.max_steps=24",
        "trainer.batch_size=4",
        "trainer.device_batch=4",
        "trainer.checkpoint_steps=4",
        "evaluator.testbed.items=3",
        "tracker=jsonl",
    )


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_chain_killed_at_random_moments_ends_in_the_same_bytes_and_pays_for_nothing_twice(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    chance = random.Random(processes)
    counted = Counter[str]()
    with FaultyServer(latency=0.02) as server:
        began = time.monotonic()
        finish(server, tmp_path / "unbroken", 1)
        whole = contents(tmp_path / "unbroken")
        seconds = time.monotonic() - began
        for number in range(RUNS):
            store = tmp_path / f"killed-{number}"
            server.billed.clear()
            kept: dict[str, int] = {}
            for _ in range(chance.choice((1, 1, 2, 3))):
                counted["kills"] += killed(server, store, processes, seconds * chance.uniform(0.1, 0.95))
                kept = {request: server.billed[request] for request in paid_requests(store)} | kept
            finish(server, store, processes)
            again = sum(times - 1 for times in server.billed.values())
            twice = sum(server.billed[request] - times for request, times in kept.items())
            counted.update({"runs": 1, "lost in flight": again - twice, "paid twice": twice})
            assert contents(store) == whole
            assert len(server.billed) == len(paid_requests(store)) == 3 * ROWS
            assert again <= counted["kills"] * 4
    sys.stdout.write(f"\n{processes} at a time: {dict(counted)}\n")
    assert counted["paid twice"] == 0
    assert counted["kills"] > 0


def killed(server: FaultyServer, store: Path, processes: int, seconds: float) -> int:
    """Start, kill all after so many seconds, and return how many were hit."""
    started = [command(*settings(server), store=store) for _ in range(processes)]
    time.sleep(seconds)
    hit = [one for one in started if one.poll() is None]
    for one in hit:
        one.send_signal(signal.SIGKILL)
    for one in started:
        one.communicate()
    server.wait_until_quiet()
    return len(hit)


def finish(server: FaultyServer, store: Path, processes: int) -> None:
    """Run to the end, so many at a time; each stage is made by one of them only."""
    before = len(list(store.glob("runs/*/run.json")))
    started = [command(*settings(server), store=store) for _ in range(processes)]
    ended = [one.communicate(timeout=600)[1] for one in started]
    assert [one.returncode for one in started] == [0] * processes, "\n".join(ended)
    runs = sorted(store.glob("runs/*/run.json"))
    assert len(runs) == before + processes
    stages = [stage for run in runs[before:] for stage in json.loads(run.read_text())["stages"]]
    made = Counter(stage["key"] for stage in stages if stage["how"] != "hit")
    assert set(made.values()) <= {1}


def test_store_on_a_full_disk_fails_in_one_line_and_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    disk = tmp_path / "disk"
    disk.mkdir()
    with FaultyServer() as server:
        finish(server, tmp_path / "unbroken", 1)
        server.billed.clear()
        mounted(disk, "200k")
        try:
            for size in ("200k", "700k", "1200k"):
                subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
                process = command(*settings(server), store=disk / "store")
                _, errors = process.communicate(timeout=600)
                assert process.returncode == 2, errors
                assert "Traceback" not in errors
                assert "No space left" in errors or "disk" in errors, errors
            subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
            finish(server, disk / "store", 1)
            assert contents(disk / "store") == contents(tmp_path / "unbroken")
            lost = sum(times - 1 for times in server.billed.values())
            assert lost <= 3 * 4, f"{lost} replies were paid for twice"
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def test_store_that_is_read_only_fails_in_one_line_and_goes_on_when_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    disk = tmp_path / "disk"
    disk.mkdir()
    with FaultyServer() as server:
        mounted(disk, "50m")
        try:
            process = command(*settings(server), "until=scores", store=disk / "store")
            assert process.communicate(timeout=600) and process.returncode == 0
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            for mode in ("run", "plan"):
                process = command(*settings(server), f"mode={mode}", store=disk / "store")
                _, errors = process.communicate(timeout=600)
                assert process.returncode == (2 if mode == "run" else 0), errors
                assert "Traceback" not in errors
                assert mode == "plan" or "read-only" in errors.lower(), errors
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            finish(server, disk / "store", 1)
            assert set(server.billed.values()) == {1}
        finally:
            subprocess.run(["umount", str(disk)], check=True)


def mounted(folder: Path, size: str) -> None:
    """Mount a disk of that size in memory, or skip where this user can't."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs to mount a small disk, which is the administrator's right: {done.stderr.strip()}")
