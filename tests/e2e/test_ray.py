"""The chain on a simulated cluster: the same bytes as on one machine, on any number of them, and whatever is killed."""

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srecycle.engine.ray import RayEngine
from srecycle.evaluator.answers import Answers
from srecycle.report.runs import read_run
from srecycle.runner import run
from srecycle.stage import materialize
from srecycle.store import Store
from tests.conftest import ROOT
from tests.e2e.conftest import Make, command, contents

ray = pytest.importorskip("ray", reason="engine=ray is an extra: pip install 'srecycle[ray]'")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
SCORED = ("data.count=64", "engine.shard_rows=4", "tracker=jsonl", "until=assemble")
GENERATED = (
    "data.count=16",
    "engine.shard_rows=2",
    "tracker=jsonl",
    "until=assemble",
    "teacher=self",
    "teacher.max_tokens=16",
    "selector@selector.instruction=coherence",
)
"""The student as a teacher: most instruction prompts are too long for it, and its answers want asking again."""


@contextmanager
def _cluster(nodes: int) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(ROOT))
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            for _ in range(nodes - 1):
                made.add_node(**NODE)
            yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with _cluster(2) as made:
        yield made


def _on(cluster: Any) -> tuple[str, ...]:
    return "engine=ray", f"engine.address={cluster.address}"


def _replies(store: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(store / "ledger.sqlite") as ledger:
        return sorted(ledger.execute("SELECT key, reply FROM replies"))


@pytest.mark.parametrize(("nodes", "settings", "stages"), [(2, GENERATED, 9), (4, SCORED, 8)])
def test_ray_chain_on_several_machines_ends_in_the_bytes_of_one(
    make: Make, tmp_path: Path, nodes: int, settings: Sequence[str], stages: int
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    run(make(*settings, f"store={here}"), {}, [])
    with _cluster(nodes) as made:
        run(make(*settings, f"store={there}", *_on(made)), {}, [])
    assert contents(here) == contents(there)
    assert len({name.split("/")[1] for name in contents(here)}) == stages
    assert _replies(here) == _replies(there) and bool(_replies(here)) == (settings is GENERATED)


def test_ray_answers_of_several_machines_are_those_of_one(make: Make, tmp_path: Path, cluster: Any) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"instruction": "add {n} and {n + 1}"}}\n' for n in range(150)))
    parts = make()
    stage = Answers(
        prompts=prompts,
        student=parts.student,
        template=parts.template,
        adapter=None,
        model=None,
        max_new_tokens=12,
        temperature=0.7,
        top_p=None,
        seed=0,
        stop=(),
        batch_tokens=2048,
    )
    there = replace(stage, engine=RayEngine(address=cluster.address))
    made = [materialize(one, Store(tmp_path / str(one.engine.elsewhere))).artifact.folder for one in (stage, there)]
    here, other = ((folder / "answers.parquet").read_bytes() for folder in made)
    assert stage.key == there.key and here == other


def test_ray_machine_and_worker_killed_in_the_middle_change_nothing(
    make: Make, tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    store, here = tmp_path / "store", tmp_path / "here"
    lost, killed = cluster.add_node(**NODE), list[int]()

    def kill() -> None:
        _until(lambda: any(store.glob("artifacts/likelihoods/*/.work/shard-000003.parquet")))
        cluster.remove_node(lost, allow_graceful=False)
        _until(lambda: any(store.glob("artifacts/likelihoods/*/.work/shard-000006.parquet")))
        killed.append(_workers()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    run(make(*SCORED, "data.count=160", f"store={store}", *_on(cluster)), {}, [])
    thread.join()
    run(make(*SCORED, "data.count=160", f"store={here}"), {}, [])
    assert contents(store) == contents(here) and killed
    assert capsys.readouterr().err.count("a worker died") == 2


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)],
)
def test_ray_run_that_is_ended_leaves_no_worker_and_goes_on_where_it_stopped(
    make: Make, tmp_path: Path, cluster: Any, sent: signal.Signals, code: int
) -> None:
    store, here = tmp_path / "store", tmp_path / "here"
    workers = "engine.workers=1" if sent == signal.SIGTERM else "engine.workers=null"
    process = command(*SCORED, "data.count=160", *_on(cluster), workers, store=store)
    _until(lambda: any(store.glob("artifacts/likelihoods/*/.work/shard-000003.parquet")))
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    kept = {path.name for path in store.glob("artifacts/likelihoods/*/.work/shard-*")}
    _until(lambda: not _workers())

    resumed = read_run(run(make(*SCORED, "data.count=160", f"store={store}", *_on(cluster)), {}, []))
    assert {stage["label"]: stage["how"] for stage in resumed.stages}["likelihoods"] == "resume" and kept
    run(make(*SCORED, "data.count=160", f"store={here}"), {}, [])
    assert contents(store) == contents(here)


def test_ray_cluster_of_its_own_goes_with_the_run(tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = command(*SCORED, "engine=ray", "engine.address=null", store=store)
    _until(lambda: any(store.glob("artifacts/likelihoods/*/.work/shard-000003.parquet")))
    assert _children(process.pid, "raylet")
    children = _children(process.pid, "")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    _until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def _workers() -> list[int]:
    """Return the processes of workers of ours on this machine."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if "ray::_Worker" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def _children(pid: int, name: str) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True) if name in child.name()]


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)
