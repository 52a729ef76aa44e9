"""An append-only `metrics.jsonl` in the run's folder: one JSON object an event, flushed as it happens.

It is the record of truth: a killed run has everything up to its last event, and other trackers can be filled from it.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from srecycle.config import component
from srecycle.stage import Made
from srecycle.tracker.base import RunInfo, Session, Tracker


class JsonlSession(Session):
    """Writes events to `metrics.jsonl`."""

    def __init__(self, run: RunInfo) -> None:
        """Begin the file with what is known of the run."""
        self._stream = (run.folder / "metrics.jsonl").open("a", encoding="utf-8")
        described = {"id": run.id, "name": run.name, "group": run.group, "choices": dict(run.choices)}
        self._write("run", {**described, "config": run.config, "keys": dict(run.keys)})

    def stage(self, label: str, made: Made) -> None:
        """Write the stage's metrics."""
        self._write(
            "stage",
            {
                "stage": label,
                "key": made.artifact.key,
                "how": made.how,
                "seconds": round(made.seconds, 3),
                "metrics": made.artifact.metrics,
            },
        )

    def curve(self, label: str, curve: pa.Table) -> None:
        """Write one event a step."""
        for line in curve.to_pylist():
            self._write("curve", {"stage": label, **line})

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the end, and close the file."""
        self._write("end", {"status": status, "summary": dict(summary)})
        self._stream.close()

    def _write(self, event: str, content: Mapping[str, Any]) -> None:
        line = json.dumps({"event": event, "time": round(time.time(), 3), **content}, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()


@component
class JsonlTracker(Tracker):
    """Writes `metrics.jsonl` and talks to nobody."""

    def open(self, run: RunInfo) -> Session:
        """Open the run's file."""
        return JsonlSession(run)
