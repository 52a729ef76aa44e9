"""What a run tells of itself, as events: plain JSON objects that are kept, and from which any tracker can be filled.

    run    who, where, with which configuration        stage  metrics, figures, histograms, tables, artifact
    curve  one step of a training                      end    how it ended, and the summary

An event's number (the first is 0) is its place among these; events of other kinds are a tracker's own notes and are
not counted. Reading is forgiving: a line that a killed process left unfinished is passed over.
"""

import json
import time
from collections.abc import Iterator, Mapping
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
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event
