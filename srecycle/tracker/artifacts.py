"""What of a stage is kept as an artifact: its name, type and metadata, and which of its files are copied there. Pure.

An artifact's metadata holds the stage's key and its inputs' keys: lineage that can be read without a server.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.config import flattened
from srecycle.store import RECORD
from srecycle.tracker.events import Event

KINDS = {
    "source": "dataset",
    "reflect_instruction": "rewrites",
    "reflect_response": "rewrites",
    "likelihoods": "likelihoods",
    "embeddings": "embeddings",
    "scores": "scores",
    "select_instruction": "selection",
    "select_response": "selection",
    "assemble": "dataset",
    "preferences": "dataset",
    "train": "model",
    "evaluate": "evaluation",
}
"""The type of each stage's artifact. No stage is left out: lineage has no gaps."""

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An artifact to be logged: files by name that go along, and files that are only referred to by their place."""

    name: str
    kind: str
    metadata: Mapping[str, Any]
    files: Mapping[str, Path]
    references: Mapping[str, Path]


def kept(event: Event, store: Path, most_mib: float) -> Kept:
    """Describe the artifact of a stage's event. Files of more than `most_mib` MiB are referred to.

    Files that are gone (the store was pruned since) are left out; the manifest has their digests.
    """
    stage, key, told = event["artifact"]["stage"], event["key"], event["artifact"]
    folder = store / "artifacts" / stage / key
    there = {name: file for name in (RECORD, *told["files"]) if (file := folder / name).is_file()}
    small = {name: file for name, file in there.items() if file.stat().st_size <= most_mib * _MIB}
    metadata: dict[str, Any] = {"key": key, "stage": stage, "inputs": [list(one) for one in told["inputs"]]}
    metadata |= {name: value for name, value in flattened(event["metrics"]).items() if value is not None}
    return Kept(
        name=f"{event['stage'].replace('/', '-')}-{key[:12]}",
        kind=KINDS.get(stage, stage),
        metadata=metadata,
        files=small,
        references={name: file for name, file in there.items() if name not in small},
    )


def lineage(events: Sequence[Event]) -> dict[str, Any]:
    """Return what was made from what, by stage: key, inputs' keys, and the files with their digests."""
    return {event["stage"]: _made(event) for event in events if event["event"] == "stage"}


def _made(event: Event) -> dict[str, Any]:
    return {"key": event["key"], "how": event["how"], **event.get("artifact", {})}
