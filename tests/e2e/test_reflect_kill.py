"""kill -9 at ten random moments of a reflection: the same bytes as an unbroken one, and little is paid for twice.

The server fails a fifth of the requests, and counts what a provider would bill.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.conftest import paid_requests
from tests.faulty_server import FaultyServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS, ROWS, CONCURRENCY = 10, 120, 8
REQUESTS = 3 * ROWS

_REFLECTION = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from srecycle.compose import build, config_folder
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.teacher import pace

pace.FIRST_PAUSE = 0.02
with initialize_config_dir(str(config_folder()), version_base="1.3"):
    _, experiment = build(compose("config", sys.argv[1:]))
for name, stage in experiment.plan().items():
    if name in ("source", "reflect_instruction", "reflect_response"):
        materialize(stage, Store(experiment.store))
"""


def test_reflection_killed_at_random_moments_ends_in_the_same_bytes_and_pays_for_what_was_in_flight(
    tmp_path: Path,
) -> None:
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    kept: dict[str, int] = {}
    with FaultyServer(rate=0.2, latency=0.03) as server:
        # Counted in replies that were sent, not in seconds: the machine's speed must not move the moments.
        moments = sorted(random.Random(7).sample(range(5, REQUESTS - 10), KILLS))
        for moment in moments:
            process = _start(server, killed)
            while server.billed.total() < moment and process.poll() is None:
                time.sleep(0.002)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            server.wait_until_quiet()
            kept = {key: server.billed[key] for key in paid_requests(killed)}
        assert len(kept) < REQUESTS
        _finish(server, killed)
        paid = Counter(server.billed)
        for key, times in kept.items():
            assert paid[key] == times, "a reply that the ledger had was paid for again"
        assert len(paid) == REQUESTS
        lost = paid.total() - REQUESTS
        assert lost <= KILLS * CONCURRENCY, f"{lost} replies were lost in {KILLS} kills"
        _finish(server, unbroken)
    for name in ("reflect_instruction", "reflect_response"):
        (one,), (other,) = (list(store.glob(f"artifacts/{name}/*/candidates.parquet")) for store in (killed, unbroken))
        assert one.read_bytes() == other.read_bytes()
        assert one.parent.name == other.parent.name
    assert paid_requests(killed) == paid_requests(unbroken)


def _start(server: FaultyServer, store: Path) -> "subprocess.Popen[str]":
    settings = (
        f"store={store}",
        f"data.count={ROWS}",
        "engine.shard_rows=32",
        "teacher=openai",
        "teacher.model=m",
        f"teacher.base_url={server.url}",
        f"teacher.concurrency={CONCURRENCY}",
        "teacher.attempts=12",
        "teacher.timeout=0.5",
    )
    return subprocess.Popen(
        [sys.executable, "-c", _REFLECTION, *settings],
        cwd=ROOT,
        env=os.environ | {"OPENAI_API_KEY": "none"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(server: FaultyServer, store: Path) -> None:
    process = _start(server, store)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
