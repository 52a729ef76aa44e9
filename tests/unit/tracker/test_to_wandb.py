"""W&B filled from `metrics.jsonl`: after a run, after a kill, twice, and while it goes on."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pytest
import wandb

from srecycle.data import Source
from srecycle.data.testbed import Testbed as World
from srecycle.errors import UserError
from srecycle.stage import Made, materialize
from srecycle.store import Store
from srecycle.tracker import RunInfo
from srecycle.tracker.events import read_events
from srecycle.tracker.jsonl import JsonlTracker
from srecycle.tracker.wandb import WandbTracker, to_wandb
from tests.offline_runs import OfflineRun, offline_run

CURVE = pa.table({"step": [1, 2], "loss": [0.5, 0.25]})
OFFLINE = WandbTracker(mode="offline")
CONFIG = {"keep": {"ifd_max": {"below": 0.9}}}


@pytest.fixture
def made(store: Store) -> Made:
    return materialize(Source(data=World(count=3, mix={"ok": 1.0})), store)


def info(store: Store, name: str = "") -> RunInfo:
    name = name or secrets.token_hex(4)  # W&B knows the runs of a process by their ids
    folder = store.root / "runs" / name
    folder.mkdir()
    return RunInfo(
        id=name, name="arm", group="g", folder=folder, overrides=("a=1",), choices={}, config=CONFIG, keys={}
    )


def _offline(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


def _told(run: OfflineRun) -> list[dict]:
    """Return what was logged, less the clock."""
    return [
        {name: value for name, value in line.items() if name not in ("_runtime", "_timestamp")} for line in run.history
    ]


def test_run_is_replayed_once_as_it_would_have_been_logged(store: Store, made: Made) -> None:
    live, later = info(store, "live"), info(store, "later")
    for tracker, run in ((OFFLINE, live), (JsonlTracker(), later)):
        session = tracker.open(run)
        session.stage("source", made)
        session.curve("train", CURVE)
        session.finish("finished", {"cost/usd": 0.5})
    assert to_wandb([live.folder, later.folder], OFFLINE) == {live.folder: "there already", later.folder: "replayed"}
    assert to_wandb([later.folder], OFFLINE) == {later.folder: "there already"}

    (first,), (second,) = _offline(live.folder), _offline(later.folder)
    logged, replayed = offline_run(first), offline_run(second)
    assert _told(logged) == _told(replayed)
    assert [line.get("train/loss") for line in _told(replayed)] == [None, 0.5, 0.25]
    assert replayed.summary["status"] == "finished" and replayed.summary["cost/usd"] == 0.5
    assert replayed.about["run_id"] == "later" and replayed.about["name"] == "arm (a=1)"
    assert replayed.config["threshold/keep/ifd_max/below"] == 0.9
    assert json.loads((later.folder / "manifest.json").read_text())["source"]["key"] == made.artifact.key
    to_wandb([later.folder], WandbTracker(mode="offline", project="another"))
    assert len(_offline(later.folder)) == 2


_APART = """
import sys
from pathlib import Path
from tests.unit.tracker.test_to_wandb import CURVE, OFFLINE, Source, Store, World, info, materialize
store = Store(Path(sys.argv[1]))
session = OFFLINE.open(info(store))
session.stage("source", materialize(Source(data=World(count=3, mix={"ok": 1.0})), store))
session.curve("train", CURVE)
print("logged", flush=True)
if sys.stdin.read():
    session.finish("finished", {})
"""


def _apart(store: Store, **environment: str) -> "subprocess.Popen[str]":
    """Begin a run in a process with a W&B of its own, which ends when it is told anything."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    process = subprocess.Popen(
        [sys.executable, "-c", _APART, str(store.root)],
        env=own | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "logged\n"
    return process


def test_killed_run_is_whole_up_to_its_last_event_and_replayed(store: Store) -> None:
    process = _apart(store)
    (folder,) = (store.root / "runs").iterdir()
    assert to_wandb([folder], OFFLINE) == {folder: "running"}
    process.send_signal(signal.SIGKILL)
    process.wait()

    kept = [event["event"] for event in read_events(folder / "metrics.jsonl")]
    assert kept == ["run", "wandb", "stage", "curve", "curve"]
    assert to_wandb([folder], OFFLINE) == {folder: "replayed"}
    replayed = offline_run(_offline(folder)[-1])
    assert replayed.about["run_id"] == folder.name and replayed.about["exit_code"] == 1
    assert replayed.summary["status"] == "killed" and replayed.summary["source/rows"] == 3
    assert [line["train/loss"] for line in _told(replayed) if "train/loss" in line] == [0.5, 0.25]
    assert to_wandb([folder], OFFLINE) == {folder: "there already"}


def test_line_that_a_kill_tore_is_passed_over(store: Store, made: Made) -> None:
    run = info(store)
    session = JsonlTracker().open(run)
    session.stage("source", made)
    session.finish("finished", {})
    file = run.folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert to_wandb([run.folder], OFFLINE) == {run.folder: "replayed"}
    assert [event["event"] for event in read_events(file)] == ["run", "stage", "wandb"]
    assert offline_run(_offline(run.folder)[0]).summary["status"] == "killed"


def test_folder_without_events_is_passed_over(store: Store) -> None:
    run = info(store)
    assert to_wandb([run.folder], OFFLINE) == {run.folder: "nothing"}
    (run.folder / "metrics.jsonl").write_text("no event\n")
    assert to_wandb([run.folder], OFFLINE) == {run.folder: "nothing"}


def test_run_under_a_sweep_of_wandb_loses_nothing_to_its_locked_keys(store: Store, tmp_path: Path) -> None:
    given = tmp_path / "config.yaml"
    given.write_text("wandb_version: 1\nkeep.ifd_max.below:\n  value: 0.9\nteacher:\n  value: scripted\n")
    agent = {"SWEEP_ID": "s1", "RUN_ID": "given", "SWEEP_PARAM_PATH": str(given)}
    process = _apart(store, **{f"WANDB_{name}": value for name, value in agent.items()})
    process.communicate("end")
    (folder,) = (store.root / "runs").iterdir()
    read = offline_run(_offline(folder)[0])
    assert read.about["run_id"] == "given"
    assert read.config["teacher"] == "scripted" and read.config["keep.ifd_max.below"] == 0.9
    assert read.config["cfg"] == CONFIG and read.config["threshold/keep/ifd_max/below"] == 0.9


def test_run_that_wandb_refuses_does_not_stop_the_others(
    store: Store, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [info(store) for _ in range(2)]
    for run in runs:
        session = JsonlTracker().open(run)
        session.stage("source", made)
        session.finish("finished", {})
    log, calls = wandb.sdk.wandb_run.Run.log, iter([OSError("no space left")])

    def once(*given: Any, **named: Any) -> None:
        for error in calls:
            raise error
        log(*given, **named)

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", once)
    outcomes = to_wandb([run.folder for run in runs], OFFLINE)
    assert list(outcomes.values()) == ["refused by W&B", "replayed"]
    assert to_wandb([runs[0].folder], OFFLINE) == {runs[0].folder: "replayed"}, "it is tried again"


def test_run_that_cannot_begin_holds_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = info(store)
    refusal = wandb.errors.UsageError("not\nlike this")
    monkeypatch.setattr("wandb.init", lambda **_: (_ for _ in ()).throw(refusal))
    with pytest.raises(UserError, match=r"W&B can't begin a run .not like this."):
        OFFLINE.open(run)
    with filelock.FileLock(run.folder / "metrics.lock", timeout=0):
        pass


def test_wandb_that_takes_for_ever_holds_up_no_stage_and_the_end_for_a_while_only(
    store: Store, made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, stuck = info(store), threading.Event()
    session = WandbTracker(mode="offline", finish_minutes=0.01).open(run)
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", lambda *_, **__: stuck.wait(60) and None)
    began = time.monotonic()
    session.stage("source", made)
    session.curve("train", CURVE)
    session.finish("finished", {})
    assert time.monotonic() - began < 20
    stuck.set()
    assert f"srecycle-report --to-wandb {run.id}" in " ".join(capsys.readouterr().err.split())
    assert [event["state"] for event in read_events(run.folder / "metrics.jsonl") if event["event"] == "wandb"] == [
        "begun"
    ]


def test_run_goes_on_where_wandb_stops_taking_it(
    store: Store, made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = info(store)
    session = OFFLINE.open(run)
    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", lambda *_, **__: (_ for _ in ()).throw(OSError("no space left")))
    session.stage("source", made)
    session.finish("finished", {})
    assert "no space left" in capsys.readouterr().err
    assert [event["event"] for event in read_events(run.folder / "metrics.jsonl")] == ["run", "wandb", "stage", "end"]
    monkeypatch.undo()
    assert to_wandb([run.folder], OFFLINE) == {run.folder: "replayed"}
