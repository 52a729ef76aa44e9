"""A stage turns typed artifacts into the next one. It is inert: constructing it does no work.

A stage is a component whose fields are its configured parts and the stages that it reads. Its key is the hash of its
identity, in which an input stage stands as that stage's own key, so a change anywhere upstream gives new keys from
there on and nowhere else. `materialize` answers with the stored artifact (hit), finishes what a killed process left
(resume), or makes it (run).
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.config import Canonical, Component, component, fingerprint, identity
from srecycle.store import Artifact, Store, write_json, write_table

How = Literal["hit", "resume", "run"]
Metrics = dict[str, Any]


@component
class Stage(Component):
    """Base of all stages. Subclasses declare fields, `name`, and `run`."""

    @property
    def name(self) -> str:
        """The stage's name: its folder in the store, and its prefix in metrics."""
        raise NotImplementedError

    def run(self, work: "Work") -> Metrics:
        """Write the artifact's files into `work.folder`, and return its deterministic metrics."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise UserError where something that this stage needs from outside (a key, a file) is missing."""
        return

    @cached_property
    def payload(self) -> dict[str, Canonical]:
        """What the key is the hash of."""
        return identity(self)

    @cached_property
    def key(self) -> str:
        """The name of this stage's result in the store."""
        return fingerprint(self.payload)

    @cached_property
    def inputs(self) -> tuple["Stage", ...]:
        """The stages that this one reads."""
        found: list[Stage] = []
        for declared in fields(self):
            value = getattr(self, declared.name)
            found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Stage)]
        return tuple(found)

    def reference(self) -> Canonical:
        """An input stage stands in an identity as its key."""
        return {"stage": self.name, "key": self.key}


@dataclass(kw_only=True)
class Work:
    """What a running stage is given: where to write, what to read, and a place for what survives a kill.

    Files in `folder` become the artifact. Files in `scratch` stay until the artifact is complete, so a stage that
    finds some there goes on from them. `notes` goes into the provenance (throughput, cost, which budget was used).
    """

    store: Store
    folder: Path
    scratch: Path
    notes: dict[str, Any] = field(default_factory=dict)

    def read(self, stage: Stage) -> Artifact:
        """Return the artifact of an input stage."""
        artifact = self.store.find(stage.name, stage.key)
        assert artifact is not None, f"{stage.name} {stage.key} was read before it was made"
        return artifact

    def planned(self, name: str, decide: Callable[[], int]) -> int:
        """Return a number that is decided once and kept while this work lasts, however often it is resumed."""
        plan = self.scratch / f"{name}.json"
        if not plan.exists():
            write_json(plan, {name: decide()})
        return int(json.loads(plan.read_text())[name])

    def write(self, name: str, tables: pa.Table | Iterable[pa.Table]) -> None:
        """Write one of the artifact's tables, whole or part after part."""
        write_table(self.folder / f"{name}.parquet", tables)

    def written(self, name: str, columns: Iterable[str]) -> pa.Table:
        """Return columns of a table that was written."""
        return pq.read_table(self.folder / f"{name}.parquet", columns=list(columns))


@dataclass(frozen=True, kw_only=True)
class Made:
    """A materialized stage: the artifact, how it was come by, and how long that took (seconds)."""

    stage: Stage
    artifact: Artifact
    how: How
    seconds: float


def materialize(stage: Stage, store: Store) -> Made:
    """Return the stage's artifact, making it where the store doesn't have it. Its inputs must have been made."""
    started = time.monotonic()
    if found := store.find(stage.name, stage.key):
        store.clear(stage.name, stage.key)
        return Made(stage=stage, artifact=found, how="hit", seconds=time.monotonic() - started)
    with store.lock(stage.name, stage.key):
        if found := store.find(stage.name, stage.key):  # another process made it while we waited
            return Made(stage=stage, artifact=found, how="hit", seconds=time.monotonic() - started)
        folder, scratch, resumed = store.begin(stage.name, stage.key)
        work = Work(store=store, folder=folder, scratch=scratch)
        begun = datetime.now(UTC)
        metrics = stage.run(work)
        seconds = time.monotonic() - started
        facts = provenance() | {
            "started": begun.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "resumed": resumed,
            "notes": work.notes,
        }
        artifact = store.commit(stage.name, stage.key, stage.payload, metrics, facts)
    return Made(stage=stage, artifact=artifact, how="resume" if resumed else "run", seconds=seconds)


_RECORDED_PACKAGES = ("srecycle", "torch", "transformers", "trl", "peft", "lm_eval", "pyarrow", "numpy", "openai")


def provenance() -> dict[str, Any]:
    """Return what may differ between equal runs: code, packages, machine. No environment variables: they hold keys."""
    return {
        "argv": sys.argv,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "packages": {name: _version(name) for name in _RECORDED_PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Ask git about our own checkout; None where this is an installed copy (perhaps inside somebody's repository)."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
