"""One W&B run as a function of events: which numbers, histograms, tables, curves and artifacts they become there.

An event's number is W&B's step, so that logging an event twice adds nothing. W&B's library is handed in.
"""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.tracker import agent
from srecycle.tracker.artifacts import kept
from srecycle.tracker.events import METRICS, Event
from srecycle.tracker.labels import RESULTS, command, flat_config, results

if TYPE_CHECKING:
    from srecycle.tracker.wandb import WandbTracker

NOTE = "wandb"
"""The kind of our own notes among the events: which W&B run was begun, and which holds the events as a whole."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Whether W&B is talked to, and why not where it isn't."""

    mode: Literal["online", "offline", "disabled"]
    why: str = ""


class WandbRun:
    """One W&B run, to which events are logged."""

    def __init__(
        self,
        tracker: "WandbTracker",
        line: Line,
        folder: Path,
        begin: Event,
        *,
        library: Any,
        identifier: str,
        name: str,
    ) -> None:
        """Begin it: online where `line` says so and W&B agrees, else offline, and say how to sync it."""
        self._wandb, self._folder, self._tracker, self._begin = library, folder, tracker, begin
        self._identifier, self._name, self._mode = identifier, name, line.mode
        self._axes = set[str]()
        try:
            self._run = self._init()
        except library.errors.Error as error:
            why = " ".join(str(error).split())
            if tracker.mode == "online" or self._mode == "offline":
                raise UserError(f"W&B can't begin a run ({why}): `wandb login`, or use tracker.mode=offline") from error
            line = Line(mode="offline", why=f"W&B refused: {why}")
            self._mode = "offline"
            library.teardown()  # its service holds on to the id that was refused
            self._run = self._init()
        if self._mode == "offline":
            self.place = str(self._run.settings.sync_dir)
            shown = shlex.quote(os.path.relpath(self.place))
            say(f"W&B offline ({line.why}); to sync it later: wandb sync {shown}")
        else:
            self.place = str(self._run.url)
            say(f"W&B: {self.place}")

    def _init(self) -> Any:
        tracker, begin = self._tracker, self._begin
        # W&B's telemetry goes by the mode of the process: that of an offline run would look for the server at the end.
        self._wandb.setup(self._wandb.Settings(mode=self._mode, silent=True))
        return self._wandb.init(
            mode=self._mode,
            project=None if agent.sweep() else tracker.project,
            entity=None if agent.sweep() else tracker.entity,
            id=self._identifier,
            resume="allow",
            name=self._name,
            group=begin["group"] or agent.sweep(),
            job_type=tracker.job_type,
            tags=list(tracker.tags),
            notes=tracker.notes if tracker.notes is not None else command(begin.get("overrides", ())),
            dir=str(self._folder),
            reinit="create_new",
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                init_timeout=30,
                save_code=False,
                finish_timeout=60 * tracker.finish_minutes,
                finish_timeout_raises=True,
            ),
            config=flat_config(begin),
        )

    def note(self, state: str) -> dict[str, Any]:
        """Return what is noted of this W&B run among the events."""
        return {
            "event": NOTE,
            "state": state,
            "mode": self._mode,
            "id": self._run.id,
            "name": self._name,
            "entity": self._tracker.entity,
            "project": self._tracker.project,
            "place": self.place,
        }

    def takes(self, step: int, event: Event) -> bool:
        """Log an event as this step. Where W&B trips over it, say so, end the W&B run, and return False."""
        try:
            if event["event"] == "stage":
                self._stage(step, event)
            elif event["event"] == "curve":
                self._point(step, event)
            elif event["event"] == "end":
                self._end(step, event)
        except Exception as error:  # noqa: BLE001  (whatever W&B trips over, it must not end a run of days)
            why = " ".join(str(error).split()) or type(error).__name__
            say(f"  warning: W&B stopped taking this run ({why}); all of it is in {self._folder / METRICS}")
            with suppress(Exception):
                self.finish("broken", {})
            return False
        return True

    def _stage(self, step: int, event: Event) -> None:
        label, metrics = event["stage"], event["metrics"]
        words = {f"{label}/{name}": value for name, value in metrics.items() if isinstance(value, str)}
        numbers = {f"{label}/{name}": value for name, value in metrics.items() if not isinstance(value, str | None)}
        histograms = {
            name: self._wandb.Histogram(np_histogram=(one["counts"], one["edges"]))
            for name, one in event.get("histograms", {}).items()
        }
        tables = {
            name: self._wandb.Table(columns=one["columns"], data=one["rows"], allow_mixed_types=True)
            for name, one in event.get("tables", {}).items()
        }
        figures = {**event.get("figures", {}), f"{label}/seconds": event["seconds"]}
        self._run.log({**numbers, **figures, **histograms, **tables}, step=step)
        self._run.summary.update(words | {f"{label}/how": event["how"]})
        if "artifact" in event:
            self._log_artifact(event)

    def _point(self, step: int, event: Event) -> None:
        label = event["stage"]
        if label not in self._axes:
            self._axes.add(label)
            self._run.define_metric(f"{label}/step")
            self._run.define_metric(f"{label}/*", step_metric=f"{label}/step")
        line = {name: value for name, value in event.items() if name not in ("event", "stage", "time")}
        self._run.log({f"{label}/{name}": value for name, value in line.items() if value is not None}, step=step)

    def _log_artifact(self, event: Event) -> None:
        """Log a stage's files. Those of the store never change: W&B need not copy them before it uploads."""
        told = kept(event, self._folder.parent.parent, self._tracker.artifact_mib)
        artifact = self._wandb.Artifact(told.name, told.kind, metadata=dict(told.metadata))
        for name, file in told.files.items():
            artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        for name, file in told.references.items():
            artifact.add_reference(file.as_uri(), name=name, checksum=False)
        if event["how"] == "hit" and self._mode == "online":
            self._run.use_artifact(artifact)
        else:
            self._run.log_artifact(artifact)

    def _end(self, step: int, event: Event) -> None:
        if lines := results(self._begin, event["summary"]):
            self._run.log({"results": self._wandb.Table(columns=list(RESULTS), data=lines)}, step=step)
        self.finish(event["status"], event["summary"])

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the W&B run."""
        self._run.summary.update({**summary, "status": status})
        self._run.finish(exit_code=0 if status == "finished" else 1)
