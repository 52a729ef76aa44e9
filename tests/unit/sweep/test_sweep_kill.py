"""A sweep whose driver is killed, then one of whose jobs is: what was logged stands, and only the rest is done."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from srecycle.report.__main__ import main as report
from srecycle.report.runs import read_runs
from srecycle.tracker.events import read_run
from tests.offline_runs import offline_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux which processes a driver has started"),
]

SMALL = (
    *("data.count=96", "trainer.max_steps=24", "trainer.batch_size=4", "trainer.device_batch=4"),
    *("trainer.checkpoint_steps=4", "evaluator.testbed.items=3", "tracker.mode=offline"),
)
FILE = {
    "method": "grid",
    "metric": {"name": "evaluate/testbed/accuracy/mean", "goal": "maximize"},
    "parameters": {"trainer.learning_rate": {"values": [1e-3, 2e-3, 3e-3, 4e-3]}},
    "command": ["${env}", "${program}", "${args_no_hyphens}"],
}


def _started(folder: Path) -> "subprocess.Popen[bytes]":
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(FILE))
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    asked = [sys.executable, "-m", "srecycle.sweep", str(file), *SMALL, "--jobs", "2"]
    with (folder / "log").open("ab") as stream:
        return subprocess.Popen(asked, stderr=stream, env=own | {"HOME": str(folder)})


def _until(happened: Callable[[], Any], driver: "subprocess.Popen[bytes]") -> Any:
    limit = time.monotonic() + 300
    while not (found := happened()):
        assert time.monotonic() < limit and driver.poll() is None, "it never came so far"
        time.sleep(0.05)
    return found


def _jobs(driver: "subprocess.Popen[bytes]") -> list[int]:
    return [int(one) for one in Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()]


def _training(driver: "subprocess.Popen[bytes]", store: Path) -> int | None:
    """Return a job that is in the middle of a training: one that has kept a checkpoint, and is not done."""
    for place in store.glob("artifacts/train/*/.work/checkpoints/checkpoint-*/srecycle_finished"):
        key = place.relative_to(store / "artifacts/train").parts[0]
        for job in _jobs(driver):
            with suppress(OSError):  # it may end while we look
                if any(one.readlink().name == f"{key}.lock" for one in Path(f"/proc/{job}/fd").iterdir()):
                    return job
    return None


def _trainings(store: Path) -> Counter[str]:
    """Count by key how often a training was brought to its end, in whatever run."""
    told = [read_run(folder) for folder in (store / "runs").iterdir()]
    stages = [event for one in told if one for event in one.events if event["event"] == "stage"]
    return Counter(stage["key"] for stage in stages if stage["stage"] == "train" and stage["how"] != "hit")


def _results(store: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (store / "sweeps/small/results").glob("*.json")]


def test_sweep_that_was_killed_goes_on_and_trains_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    driver = _started(tmp_path)
    _until(lambda: _results(store) and len(_jobs(driver)) == 2, driver)
    jobs = _jobs(driver)
    driver.kill()
    driver.wait()
    limit = time.monotonic() + 60
    while any(Path(f"/proc/{job}").exists() for job in jobs):
        assert time.monotonic() < limit, "a job outlived its driver"
        time.sleep(0.05)
    done = _results(store)
    assert 1 <= len(done) < 3 and {one["status"] for one in done} == {"finished"}
    finished = [run for run in read_runs(store, "small") if run.status == "finished"]
    assert len(finished) < len(done) + 2, "jobs went on without their driver"

    before = set((store / "runs").iterdir())
    driver = _started(tmp_path)
    job = _until(lambda: _training(driver, store), driver)
    os.kill(job, signal.SIGKILL)
    assert driver.wait(400) == 2, (tmp_path / "log").read_text()
    (failed,) = [one for one in _results(store) if one["status"] == "failed"]
    assert failed["reason"].startswith("SIGKILL") and failed["metric"] is None
    assert len(_results(store)) == 4, "one job that is killed doesn't stop the rest"
    (lost,) = [one for one in (store / "runs").iterdir() if one not in before and not (one / "run.json").exists()]
    told = read_run(lost)
    assert told and [event["stage"] for event in told.events if event["event"] == "stage"][-1] == "assemble"

    driver = _started(tmp_path)
    assert driver.wait(400) == 0, (tmp_path / "log").read_text()
    runs = {run.id: run for run in read_runs(store, "small")}
    assert all(one in _results(store) for one in done), "what was done is not done again"
    assert {one["status"] for one in _results(store)} == {"finished"}
    assert all(runs[one["run"]].status == "finished" for one in _results(store))
    assert len([run for run in runs.values() if run.status == "finished"]) == 4
    trainings = _trainings(store)
    assert len(trainings) == 4 and set(trainings.values()) == {1}, trainings
    assert len(list(store.glob("artifacts/train/*/record.json"))) == 4

    monkeypatch.setenv("WANDB_MODE", "offline")
    assert report(["--store", str(store), "--to-wandb"]) == 0
    said = dict(line.split(": ", 1) for line in capsys.readouterr().err.splitlines() if line.startswith("2"))
    assert said.keys() == {one.name for one in (store / "runs").iterdir()} and said[lost.name] == "replayed"
    # Jobs that were told to stop with their driver may have stopped while W&B was being told.
    assert {said[one["run"]] for one in _results(store)} == {"there already"}
    assert {said[one] for one in runs} <= {"there already", "replayed"}
    assert report(["--store", str(store), "--to-wandb"]) == 0
    again = dict(line.split(": ", 1) for line in capsys.readouterr().err.splitlines() if line.startswith("2"))
    assert again == dict.fromkeys(said, "there already"), "what was replayed is whole"
    replayed = offline_run(sorted(lost.glob("wandb/offline-run-*"))[-1])
    assert replayed.summary["status"] == "killed" and replayed.summary["assemble/kept"] > 0
    assert {event["stage"] for event in told.events if event["event"] == "stage"} == {
        name.removesuffix("/how") for name in replayed.summary if name.endswith("/how")
    }
