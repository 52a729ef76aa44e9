"""Sweeps run here: a failing job, what is gone on with, jobs that are killed, and W&B's offline runs of all of them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from srecycle.report.runs import read_runs
from srecycle.sweep.__main__ import main
from tests.offline_runs import offline_run

pytestmark = pytest.mark.slow

BRIEF = (
    "data.count=24",
    "selector@selector.instruction=never",
    "selector@selector.response=random",
    "keep=[response_reflected_only]",
    "until=assemble",
)
"""Runs that need no model: chance selects, and nothing is trained."""

COMMAND = ["${env}", "${program}", "${args_no_hyphens}"]
METRIC = {"name": "assemble/kept", "goal": "maximize"}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a sweep file."""

    def written(**content: Any) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(
            yaml.safe_dump({"method": "grid", "metric": METRIC, "command": COMMAND} | content, sort_keys=False)
        )
        return path

    return written


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the jobs begin their own W&B, without a key."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def _results(store: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the results by the values of their settings, in the order of the names."""
    files = (store / "sweeps" / "small" / "results").glob("*.json")
    results = [json.loads(file.read_text()) for file in files]
    return {tuple(value for _, value in sorted(one["values"].items())): one for one in results}


@pytest.mark.e2e
def test_sweep_runs_what_can_be_run_and_then_only_what_is_missing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    key = "selector.response.p"
    file = write(parameters={key: {"values": [0.0, 1.0, 7.0]}, "seed": {"values": [0]}})
    assert main([str(file), *BRIEF, "--jobs", "2"]) == 2

    found = _results(store)
    assert {values: one["status"] for values, one in found.items()} == {
        (0, 0.0): "finished",
        (0, 1.0): "finished",
        (0, 7.0): "failed",
    }
    assert found[0, 0.0]["metric"] == 0 and found[0, 1.0]["metric"] > 10
    told = capsys.readouterr().err
    assert (
        f"{key}=7.0" in found[0, 7.0]["reason"] and "2 finished, 1 failed" in told and found[0, 7.0]["reason"] in told
    )
    with (store / "sweeps" / "small" / "summary.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line[key] for line in lines] == ["1.0", "0.0", "7.0"], "the best first, the failed last"
    assert (store / "sweeps" / "small" / "report.html").is_file()

    file = write(parameters={key: {"values": [0.0, 0.5, 1.0]}, "seed": {"values": [0]}})
    assert main([str(file), *BRIEF]) == 0
    runs = read_runs(store, "small")
    assert len(runs) == 3 and len({run.id for run in runs}) == 3, "what was done is not done again"
    assert 0 < _results(store)[0, 0.5]["metric"] < found[0, 1.0]["metric"]

    assert all(list(run.folder.glob("wandb/offline-run-*")) for run in runs)
    for run in runs[-1:]:
        (offline,) = run.folder.glob("wandb/offline-run-*")
        read = offline_run(offline)
        probability = read.config[f"threshold/{key.replace('.', '/')}"]
        assert read.about["name"] == f"{key}={probability:.1f}, seed=0"
        assert read.config["choice/data"] == "testbed" and read.config["cfg"]["data"]["count"] == 24
        assert read.summary["assemble/kept"] == _results(store)[0, probability]["metric"]
        assert read.summary["status"] == "finished" and len(read.history) >= 5
        assert len(read.table("decisions")["data"]) == 24
        assert {"dataset", "selection"} <= {one["type"] for one in read.artifacts}


def _started(file: Path, *arguments: str, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "srecycle.sweep", str(file), *BRIEF, "data.count=3000", *arguments]
    with log.open("wb") as stream:
        return subprocess.Popen(command, stderr=stream)


def _jobs_of(process: "subprocess.Popen[bytes]", count: int) -> list[int]:
    """Wait until a driver has so many jobs, and return their process ids."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    limit = time.monotonic() + 60
    while len(found := children.read_text().split()) < count:
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.05)
    return [int(one) for one in found]


def _runs_that_began(store: Path, count: int) -> list[Path]:
    limit = time.monotonic() + 60
    while len(found := [path for path in store.glob("runs/*/metrics.jsonl") if path.stat().st_size]) < count:
        assert time.monotonic() < limit
        time.sleep(0.05)
    return found


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux which processes a driver has started")
def test_job_that_is_killed_does_not_stop_the_rest_and_a_stopped_sweep_ends_its_jobs(
    write: Write, tmp_path: Path
) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    file = write(parameters={"seed": {"values": [0, 1, 2]}})
    process = _started(file, "--jobs", "1", "tracker=jsonl", log=log)
    (job,) = _jobs_of(process, 1)
    _runs_that_began(store, 1)
    os.kill(job, signal.SIGKILL)
    _runs_that_began(store, 2)
    (job,) = _jobs_of(process, 1)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM, log.read_text()
    assert not Path(f"/proc/{job}").exists(), "a job outlived its driver"

    (killed,) = _results(store).values()
    assert killed["status"] == "failed" and killed["reason"].startswith("SIGKILL")
    ended = [json.loads(path.read_text())["status"] for path in store.glob("runs/*/run.json")]
    assert ended == ["interrupted"], "a job that is asked to end says how far it came"


@pytest.mark.e2e
def test_sweep_that_another_process_works_on_is_refused(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import filelock

    file = write(parameters={"seed": {"values": [0]}})
    folder = tmp_path / "store" / "sweeps" / "small"
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / "lock"):
        assert main([str(file), *BRIEF]) == 2
    assert "by another process" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("content", "arguments", "told"),
    [
        ({"parameters": {"seed": {"values": [0]}}}, ["seed=1"], "the file sweeps seed itself"),
        ({"parameters": {"seed": {"values": [0]}}}, ["mode=plan"], "--dry-run lists"),
        ({"parameters": {"sede": {"values": [0]}}}, [], "sede is no configuration key"),
        ({"parameters": {"seed": {"values": [0]}}, "method": "random"}, [], "give --count N"),
        ({"parameters": {"data.count": {"values": [0, -1]}}}, [], "no setting of this sweep can be run"),
    ],
)
def test_sweep_that_cannot_be_run_is_refused_in_a_line(
    write: Write,
    content: dict[str, Any],
    arguments: list[str],
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [one for one in BRIEF if not one.startswith("data.count")]
    assert main([str(write(**content)), *own, *arguments]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "store" / "runs").exists()


def test_dry_run_lists_the_commands_and_runs_nothing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["${program}", "data.count=9", "seed=5", "${args_no_hyphens}"]
    file = write(parameters={"keep.ifd_max.below": {"values": [0.5, 1.0]}}, command=command)
    assert main([str(file), "seed=6", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "srecycle group=small data.count=9 seed=6 keep.ifd_max.below=0.5",
        "srecycle group=small data.count=9 seed=6 keep.ifd_max.below=1.0",
    ]
    assert not list(tmp_path.glob("store/runs/*"))


@pytest.mark.e2e
def test_bayes_takes_a_failing_setting_for_no_measurement_and_survives_a_narrower_file(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    store, key = tmp_path / "store", "selector.response.p"
    file = write(method="bayes", parameters={key: {"min": 0.2, "max": 1.8}})  # above 1 is no probability
    asked = [str(file), *BRIEF, "tracker=jsonl", "--jobs", "2"]
    assert main([*asked, "--count", "5"]) == 2
    found = {one["values"][key]: one for one in _results(store).values()}
    assert len(found) == 5 and {one["status"] for one in found.values()} == {"finished", "failed"}
    for value, one in found.items():
        assert one["status"] == ("failed" if value > 1 else "finished")
        assert (one["metric"] is None) == (value > 1) and (f"{key}=" in one["reason"]) == (value > 1)
    told = capsys.readouterr().err
    failed = sum(value > 1 for value in found)
    assert f"{5 - failed} finished, {failed} failed" in told
    with (store / "sweeps" / "small" / "summary.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    metrics = [float(line["metric"]) for line in lines if line["metric"]]
    assert len(lines) == 5 and metrics == sorted(metrics, reverse=True) and len(metrics) == 5 - failed
    assert [line["metric"] for line in lines[5 - failed :]] == [""] * failed

    narrower = write(method="bayes", parameters={key: {"min": 0.2, "max": 1.0}})
    assert main([str(narrower), *asked[1:], "--count", "8"]) == 0, "what the file doesn't allow is not tried again"
    after = {one["values"][key]: one for one in _results(store).values()}
    assert len(after) == 8 + failed and all(value <= 1 for value in after if value not in found)
    assert len(read_runs(store, "small")) == 8, "what was measured is not measured again"


@pytest.mark.e2e
def test_sweep_of_twelve_trained_runs_by_bayes_is_gone_on_with(write: Write, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    small = ["data.count=48", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.device_batch=4"]
    parameters = {"selector.response.margin": {"min": -0.5, "max": 0.5}, "keep.ifd_max.below": {"values": [0.9, 1.0]}}
    metric = {"name": "evaluate/testbed/accuracy/mean", "goal": "maximize"}
    file = write(method="bayes", parameters=parameters, metric=metric)
    shared = [str(file), *small, "evaluator.testbed.items=3", "--jobs", "2"]
    assert main([*shared, "--count", "5"]) == 0
    assert main([*shared, "--count", "12"]) == 0
    store = tmp_path / "store"
    results = _results(store)
    assert len(results) == 12 and all(one["metric"] is not None for one in results.values())
    runs = read_runs(store, "small")
    assert len(runs) == 12
    for run in runs:
        (offline,) = run.folder.glob("wandb/offline-run-*")
        read = offline_run(offline)
        assert sum(read.summary["ifd/after"]["values"]) == read.summary["assemble/kept"]
        assert len([line for line in read.history if "train/loss" in line]) == 4
        assert read.table("decisions")["data"] and "model" in {one["type"] for one in read.artifacts}
