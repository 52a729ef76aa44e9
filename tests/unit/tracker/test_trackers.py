"""What a tracker without an account keeps."""

import json
import math
from pathlib import Path

import filelock
import pyarrow as pa
import pytest

from srecycle.data import Source
from srecycle.data.testbed import Testbed as World
from srecycle.stage import Made, materialize
from srecycle.store import Store
from srecycle.tracker import NullTracker, RunInfo, Tracker
from srecycle.tracker.events import read_events
from srecycle.tracker.jsonl import JsonlTracker

CURVE = pa.table({"step": [1, 2], "loss": [0.5, None]})


def _info(folder: Path) -> RunInfo:
    folder.mkdir()
    return RunInfo(
        id="r1",
        name="n",
        group="g",
        folder=folder,
        overrides=(),
        choices={"teacher": "scripted"},
        config={"class": "x", "list": [1]},
        keys={"source": "ab"},
    )


@pytest.fixture
def made(store: Store) -> Made:
    return materialize(Source(data=World(count=3, mix={"ok": 1.0})), store)


def _run(tracker: Tracker, info: RunInfo, made: Made) -> None:
    session = tracker.open(info)
    session.stage("source", made)
    session.curve("train", CURVE)
    session.finish("finished", {"source/rows": 3})


def test_jsonl_events_are_whole_and_in_order(tmp_path: Path, made: Made) -> None:
    info = _info(tmp_path / "run")
    _run(JsonlTracker(), info, made)
    events = [json.loads(line) for line in (info.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(isinstance(event.pop("time"), float) for event in events)
    counts = {"rows": 3, "duplicates": 0, "empty_responses": 0, "empty_instructions": 0}
    assert events == [
        {
            "event": "run",
            "id": "r1",
            "name": "n",
            "group": "g",
            "choices": {"teacher": "scripted"},
            "overrides": [],
            "config": {"class": "x", "list": [1]},
            "keys": {"source": "ab"},
        },
        {
            "event": "stage",
            "stage": "source",
            "key": made.artifact.key,
            "how": "run",
            "seconds": round(made.seconds, 3),
            "metrics": counts | {"references": 3, "later_messages_left_out": 0},
            "figures": {"source/made_seconds": made.artifact.provenance["seconds"]},
            "histograms": {},
            "tables": {},
            "artifact": {"stage": "source", "inputs": [], "files": made.artifact.record["files"]},
        },
        {"event": "curve", "stage": "train", "step": 1, "loss": 0.5},
        {"event": "curve", "stage": "train", "step": 2, "loss": None},
        {"event": "end", "status": "finished", "summary": {"source/rows": 3}},
    ]


def test_jsonl_leaves_what_was_made_from_what(tmp_path: Path, made: Made) -> None:
    info = _info(tmp_path / "run")
    _run(JsonlTracker(), info, made)
    manifest = json.loads((info.folder / "manifest.json").read_text())
    assert manifest == {
        "source": {
            "key": made.artifact.key,
            "how": "run",
            "stage": "source",
            "inputs": [],
            "files": made.artifact.record["files"],
        }
    }


def test_events_are_read_past_bytes_that_a_crash_left(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"event": "run"}\n\xff\xfe\x00garbage\n[1]\n{"event": "end"}\n{"event": "st')
    assert [event["event"] for event in read_events(file)] == ["run", "end"]


def test_jsonl_event_stands_at_once(tmp_path: Path, made: Made) -> None:
    info = _info(tmp_path / "run")
    session = JsonlTracker().open(info)
    for count, act in enumerate([lambda: None, lambda: session.stage("source", made)], start=1):
        act()
        assert len((info.folder / "metrics.jsonl").read_text().splitlines()) == count


def test_jsonl_not_a_number_is_refused(tmp_path: Path) -> None:
    session = JsonlTracker().open(_info(tmp_path / "run"))
    with pytest.raises(ValueError, match="JSON compliant"):
        session.finish("finished", {"x": math.nan})
    with filelock.FileLock(tmp_path / "run" / "metrics.lock", timeout=0):
        pass


def test_null_tracker_leaves_nothing(tmp_path: Path, made: Made) -> None:
    info = _info(tmp_path / "run")
    _run(NullTracker(), info, made)
    assert list(info.folder.iterdir()) == []
