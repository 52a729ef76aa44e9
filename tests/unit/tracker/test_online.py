"""W&B online, by its own client over HTTP: lineage, replays, refusals, and a server that goes away."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srecycle.data import Source
from srecycle.data.testbed import Testbed as World
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.tracker.events import read_events
from srecycle.tracker.jsonl import JsonlTracker
from srecycle.tracker.wandb import WandbTracker, to_wandb
from tests.unit.tracker.test_to_wandb import CURVE, info
from tests.wandb_server import WandbServer

KEY = "0123456789abcdef0123456789abcdef01234567"
WORLD = Source(data=World(count=3, mix={"ok": 1.0}))


def track(root: str, name: str, minutes: str, pause: str) -> None:
    """Make a stage (or find it) and track it, in a process of its own; with `pause`, wait for a line in between."""
    store = Store(Path(root))
    tracker = WandbTracker(finish_minutes=float(minutes))
    session = tracker.open(info(store, name))
    session.stage("source", materialize(WORLD, store))
    if pause:
        sys.stdout.write("logged\n")
        sys.stdout.flush()
        sys.stdin.readline()
    session.curve("train", CURVE)
    session.finish("finished", {"evaluate/a/mean": 0.5, "cost/usd": 1.0})


def replay(root: str) -> None:
    """Fill W&B from every run of the store."""
    for folder, outcome in to_wandb(sorted((Path(root) / "runs").iterdir()), WandbTracker()).items():
        sys.stdout.write(f"{folder.name} {outcome}\n")


def _started(server: WandbServer, call: str, *arguments: str) -> "subprocess.Popen[str]":
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    given = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": arguments[0]}
    code = f"import sys; from tests.unit.tracker.test_online import {call}; {call}(*sys.argv[1:])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=own | given, text=True, **pipes)  # type: ignore[call-overload]


def _notes(store: Store, name: str) -> list[str]:
    events = read_events(store.root / "runs" / name / "metrics.jsonl")
    return [event["state"] for event in events if event["event"] == "wandb"]


def test_online_run_makes_what_is_new_and_uses_what_was_found(store: Store) -> None:
    with WandbServer() as server:
        for name in ("first", "second"):
            _, errors = _started(server, "track", str(store.root), name, "1", "").communicate(timeout=120)
            assert f"W&B: {server.url}" in errors and "warning" not in errors.lower(), errors
    first, second = server.runs["first"], server.runs["second"]
    own = {name: [one for one in run.made if one["artifactTypeName"] == "dataset"] for name, run in server.runs.items()}
    (made,) = own["first"]
    assert not first.used and not own["second"], "what was found was made by another run"
    assert second.used == [f"{made['artifactCollectionName']}@{made['digest']}"]
    assert json.loads(made["metadata"])["key"] == WORLD.key
    for run in (first, second):
        assert run.exit_code == 0 and run.summary["status"] == "finished" and run.summary["cost/usd"] == 1
        assert [line["train/loss"] for line in run.history if "train/loss" in line] == [0.5, 0.25]
        assert run.config["threshold/keep/ifd_max/below"] == 0.9 and run.about["groupName"] == "g"
        assert run.summary["results"]["_type"] == "table-file"
    assert not server.unknown
    assert not [body for body in server.bodies if KEY.encode() in body], "a key goes into no content"
    assert not [path for path in store.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert _notes(store, "second") == ["begun", "whole"]


@pytest.mark.slow
def test_run_is_replayed_online_once(store: Store) -> None:
    session = JsonlTracker().open(info(store, "later"))
    session.stage("source", materialize(WORLD, store))
    session.curve("train", CURVE)
    session.finish("failed", {})
    with WandbServer() as server:
        for outcome in ("replayed", "there already"):
            told, errors = _started(server, "replay", str(store.root)).communicate(timeout=120)
            assert told.split(maxsplit=1) == ["later", f"{outcome}\n"], errors
    (run,) = server.runs.values()
    assert run.exit_code == 1 and run.summary["status"] == "failed" and run.summary["train/loss"] == 0.25


@pytest.mark.slow
def test_server_that_refuses_leaves_an_offline_run_and_says_why(store: Store) -> None:
    with WandbServer(refuses=("upsertBucket",)) as server:
        _, errors = _started(server, "track", str(store.root), "refused", "1", "").communicate(timeout=120)
    assert "W&B offline (W&B refused: " in errors and "wandb sync" in errors, errors
    assert list(store.root.glob("runs/refused/wandb/offline-run-*/*.wandb"))
    assert _notes(store, "refused") == ["begun", "whole"]


@pytest.mark.slow
def test_server_that_goes_away_holds_a_run_up_no_longer_than_it_may(store: Store) -> None:
    with WandbServer() as server:
        process = _started(server, "track", str(store.root), "alone", "0.05", "pause")
        assert process.stdout and process.stdout.readline() == "logged\n"
    began = time.monotonic()
    _, errors = process.communicate("go on\n", timeout=120)
    assert process.returncode == 0 and time.monotonic() - began < 60, errors
    assert "srecycle-report --to-wandb" in errors or "W&B stopped taking this run" in errors
    assert _notes(store, "alone") == ["begun"], "it is not whole there"
    kept = [event["event"] for event in read_events(store.root / "runs" / "alone" / "metrics.jsonl")]
    assert kept == ["run", "wandb", "stage", "curve", "curve", "end"]
    with WandbServer() as server:
        told, errors = _started(server, "replay", str(store.root)).communicate(timeout=120)
    assert told == "alone replayed\n", errors
    assert server.runs["alone"].summary["train/loss"] == 0.25
