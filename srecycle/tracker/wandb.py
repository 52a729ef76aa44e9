"""Weights & Biases: online with a key, offline without one, and `metrics.jsonl` beside it in either case.

Flat choices and stage keys are what dashboards group and filter by; the resolved tree stands under `cfg`, a name that
no sweep locks. Metrics are logged once a stage, prefixed with it; the training curve has a step axis of its own.
Finished artifacts are logged as W&B artifacts with their keys and their inputs' keys as lineage, for W&B's own lineage
doesn't work offline.
"""

import netrc
import os
import shlex
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from srecycle.config import component, flattened, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.stage import Made
from srecycle.store import RECORD
from srecycle.tracker.base import RunInfo, Session, Tracker
from srecycle.tracker.jsonl import JsonlSession

_KINDS = {"source": "dataset", "assemble": "dataset", "train": "model", "evaluate": "evaluation"}
_FILES = {"assemble": ("training.parquet",), "evaluate": ("results.json",), "train": ("adapter", "README.md")}


class WandbSession(Session):
    """Logs to one W&B run."""

    def __init__(self, tracker: "WandbTracker", run: RunInfo) -> None:
        """Begin the W&B run, deciding first whether it is online."""
        import wandb

        self._wandb = wandb
        self._jsonl = JsonlSession(run)
        self._mode = tracker.mode if tracker.mode != "auto" else ("online" if _has_key() else "offline")
        self._folder = run.folder
        self._run = wandb.init(
            mode=self._mode,
            project=tracker.project,
            entity=tracker.entity,
            id=run.id,
            name=run.name,
            group=run.group or None,
            job_type="experiment",
            tags=list(tracker.tags),
            notes=" ".join(run.overrides),
            dir=str(run.folder),
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
            config={
                **{f"choice/{name}": value for name, value in run.choices.items()},
                **{f"key/{name}": key for name, key in run.keys.items()},
                "cfg": run.config,
            },
        )
        self._run.define_metric("train/step")
        self._run.define_metric("train/*", step_metric="train/step")

    def stage(self, label: str, made: Made) -> None:
        """Log the stage's metrics and its artifact."""
        self._jsonl.stage(label, made)
        numbers = {name: value for name, value in made.artifact.metrics.items() if not isinstance(value, str | None)}
        words = {name: value for name, value in made.artifact.metrics.items() if isinstance(value, str)}
        self._run.log(
            {f"{label}/{name}": value for name, value in numbers.items()} | {f"{label}/seconds": made.seconds}
        )
        self._run.summary.update(
            {f"{label}/{name}": value for name, value in words.items()} | {f"{label}/how": made.how}
        )
        if (kind := _KINDS.get(made.stage.name)) is not None:
            self._log_artifact(label, kind, made)

    def curve(self, label: str, curve: pa.Table) -> None:
        """Log one point a step, on the training's own axis."""
        self._jsonl.curve(label, curve)
        for line in curve.to_pylist():
            self._run.log({f"train/{name}": value for name, value in line.items() if value is not None})

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the W&B run; offline, say how to sync it later."""
        self._jsonl.finish(status, summary)
        self._run.summary.update(dict(summary) | {"status": status})
        self._run.finish(exit_code=0 if status == "finished" else 1)
        if self._mode == "offline":
            folder = next(iter(sorted((self._folder / "wandb").glob("offline-run-*"))), self._folder / "wandb")
            shown = shlex.quote(os.path.relpath(folder))
            say(f"W&B offline run; to sync it: wandb sync {shown}")

    def _log_artifact(self, label: str, kind: str, made: Made) -> None:
        folder = made.artifact.folder
        inputs = {stage.name: stage.key for stage in made.stage.inputs}
        metadata: dict[str, Any] = {"key": made.artifact.key, "inputs": inputs}
        metadata |= {name: value for name, value in flattened(made.artifact.metrics).items() if value is not None}
        artifact = self._wandb.Artifact(f"{label.replace('/', '-')}-{made.artifact.key[:12]}", kind, metadata=metadata)
        artifact.add_file(str(folder / RECORD))
        for name in _FILES.get(made.stage.name, ()):
            for file in sorted((folder / name).rglob("*")) if (folder / name).is_dir() else [folder / name]:
                if file.is_file():
                    artifact.add_file(str(file), name=file.relative_to(folder).as_posix())
        self._run.log_artifact(artifact)


@component
class WandbTracker(Tracker):
    """Logs to W&B. `mode` is "auto" (online with a key, offline without), "online" or "offline"."""

    project: str = runtime("srecycle")
    entity: str | None = runtime(None)
    tags: tuple[str, ...] = runtime(())
    mode: Literal["auto", "online", "offline"] = runtime("auto")

    def open(self, run: RunInfo) -> Session:
        """Begin a W&B run. Raises UserError where it was to be online and can't be."""
        from wandb.errors import CommError, UsageError

        try:
            return WandbSession(self, run)
        except (CommError, UsageError) as error:
            raise UserError(f"W&B can't be reached ({error}): `wandb login`, or use tracker.mode=offline") from error


def _has_key() -> bool:
    """Say whether W&B would find a key, without asking its server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
