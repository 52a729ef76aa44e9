"""An append-only `metrics.jsonl` in the run's folder: one JSON object an event, flushed as it happens.

It is the record of truth: a killed run has everything up to its last event, and other trackers can be filled from it
(`srecycle.tracker.wandb.to_wandb`). While the run goes on, it holds the lock `metrics.lock`; a dead one holds nothing.
Beside it, `manifest.json` tells at the end what was made from what.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import filelock
import pyarrow as pa
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.stage import Made
from srecycle.store import write_json
from srecycle.tracker.artifacts import lineage
from srecycle.tracker.base import RunInfo, Session, Tracker
from srecycle.tracker.events import METRICS, Event, line_of, run_event, stage_event

LOCK, MANIFEST = "metrics.lock", "manifest.json"


class JsonlSession(Session):
    """Writes events to `metrics.jsonl`; a subclass passes them on in `take`."""

    def __init__(self, run: RunInfo, table_rows: int) -> None:
        """Begin the file with what is known of the run."""
        self._lock = filelock.FileLock(run.folder / LOCK)
        self._lock.acquire(timeout=0)
        self._stream = (run.folder / METRICS).open("a", encoding="utf-8")
        self._folder, self._table_rows = run.folder, table_rows
        self._made: dict[str, Made] = {}
        self._stages: list[Event] = []
        self.write(run_event(run))

    def stage(self, label: str, made: Made) -> None:
        """Write the stage's metrics, and what else it shows."""
        event = stage_event(label, made, self._made, self._table_rows)
        self._made[label] = made
        self._stages.append({name: event[name] for name in ("event", "stage", "key", "how", "artifact")})
        self.write(event)
        self.take(event)

    def curve(self, label: str, curve: pa.Table) -> None:
        """Write one event a step."""
        for line in curve.to_pylist():
            event = {"event": "curve", "stage": label, **line}
            self.write(event)
            self.take(event)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the end and the manifest, and close the file."""
        event = {"event": "end", "status": status, "summary": dict(summary)}
        try:
            self.write(event)
            write_json(self._folder / MANIFEST, lineage(self._stages))
            self.take(event)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()
        self._lock.release()

    def write(self, event: Event) -> None:
        """Write an event, or a tracker's note, so that it stands whatever happens next."""
        self._stream.write(line_of(event))
        self._stream.flush()

    def take(self, event: Event) -> None:
        """Pass on an event that has been written."""


@component
class JsonlTracker(Tracker):
    """Writes `metrics.jsonl` and talks to nobody. Tables of samples have at most `table_rows` rows."""

    table_rows: Annotated[int, Field(ge=0)] = runtime(30)

    def open(self, run: RunInfo) -> Session:
        """Open the run's file."""
        return JsonlSession(run, self.table_rows)
