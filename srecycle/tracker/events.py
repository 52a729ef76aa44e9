"""What a run tells of itself, as events: plain JSON objects that are kept, and from which any tracker can be filled.

    run    who, where, with which configuration        stage  metrics, figures, histograms, tables, artifact
    curve  one step of a training                      end    how it ended, and the summary

An event's number (the first is 0) is its place among these; events of other kinds are a tracker's own notes and are
not counted. Reading is forgiving: a line that a killed process left unfinished is passed over.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.stage import Made
from srecycle.tracker.base import RunInfo
from srecycle.tracker.observed import observed

METRICS = "metrics.jsonl"
KINDS = ("run", "stage", "curve", "end")

Event = Mapping[str, Any]


def run_event(run: RunInfo) -> dict[str, Any]:
    """Describe the run."""
    return {
        "event": "run",
        "id": run.id,
        "name": run.name,
        "group": run.group,
        "choices": dict(run.choices),
        "overrides": list(run.overrides),
        "config": run.config,
        "keys": dict(run.keys),
    }


def stage_event(label: str, made: Made, earlier: Mapping[str, Made], table_rows: int) -> dict[str, Any]:
    """Describe a stage that stands. `earlier` are those before it, of which tables take the texts."""
    found = observed(label, made, earlier, table_rows)
    return {
        "event": "stage",
        "stage": label,
        "key": made.artifact.key,
        "how": made.how,
        "seconds": round(made.seconds, 3),
        "metrics": made.artifact.metrics,
        "figures": found.figures,
        "histograms": found.histograms,
        "tables": found.tables,
        "artifact": {
            "stage": made.stage.name,
            "inputs": [[stage.name, stage.key] for stage in made.stage.inputs],
            "files": made.artifact.record["files"],
        },
    }


def line_of(event: Event) -> str:
    """Return the event's line. Raises ValueError where a number is not finite."""
    return json.dumps({"time": round(time.time(), 3), **event}, allow_nan=False) + "\n"


def read_events(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the events that a file holds, in order, and the notes of trackers among them."""
    with file.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a run's file holds: its events, of which the first describes the run, and the notes of trackers."""

    events: list[dict[str, Any]]
    notes: list[dict[str, Any]]

    @property
    def begin(self) -> dict[str, Any]:
        """The event that describes the run."""
        return self.events[0]


def read_run(folder: Path) -> Told | None:
    """Read a run's folder. None where it left no events, or none that says which run it is."""
    if not (folder / METRICS).is_file():
        return None
    found = list(read_events(folder / METRICS))
    events = [event for event in found if event["event"] in KINDS]
    if not events or events[0]["event"] != "run":
        return None
    return Told(events=events, notes=[event for event in found if event["event"] not in KINDS])


def append(folder: Path, event: Event) -> None:
    """Add a line to a run's file, which a kill may have torn."""
    file = folder / METRICS
    torn = not file.read_bytes().endswith(b"\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n" * torn + line_of(event))
