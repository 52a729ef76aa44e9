"""Weights & Biases: online with a key, offline without one, filled from the events of `metrics.jsonl`.

A W&B run is a function of a run's events, each logged at its number as W&B's step: what a live run logs and what is
replayed from the file later is the same, and logging it twice adds nothing, since W&B drops steps that it has. Whether
it is online is decided before it begins, and said once. Flat choices, thresholds and stage keys are what dashboards
group and filter by; the resolved tree stands under `cfg`, a name that no sweep locks. A training's curve has a step
axis of its own. Artifacts are logged with their keys and their inputs' keys as metadata, and the run's folder has them
in `manifest.json`: W&B's own lineage doesn't work offline.
"""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import filelock
from pydantic import Field

from srecycle.config import component, flattened, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.store import RECORD, write_json
from srecycle.tracker.base import RunInfo, Session, Tracker
from srecycle.tracker.events import KINDS, METRICS, Event, line_of, read_events, run_event
from srecycle.tracker.jsonl import LOCK, JsonlSession
from srecycle.tracker.labels import command, flat_config, lineage, run_name
from srecycle.tracker.reachable import has_key, reachable

NOTE = "wandb"
"""The kind of our own notes among the events: which W&B run was begun, and which holds the events as a whole."""

_KINDS = {
    "source": "dataset",
    "extra": "dataset",
    "reflect_instruction": "rewrites",
    "reflect_response": "rewrites",
    "scores": "scores",
    "select_instruction": "selection",
    "select_response": "selection",
    "assemble": "dataset",
    "train": "model",
    "evaluate": "evaluation",
}
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Line:
    """Whether W&B is talked to, and why not where it isn't."""

    mode: Literal["online", "offline", "disabled"]
    why: str = ""


@component
class WandbTracker(Tracker):
    """Logs to W&B. `mode` is "auto" (online with a key, offline without), "online" or "offline".

    A run is called by the experiment's name and what was set on the command line, unless WANDB_NAME says otherwise;
    `notes` stand in for that command line. Tables of samples have at most `table_rows` rows; files above `artifact_mib`
    are referred to, not uploaded.
    """

    project: str = runtime("srecycle")
    entity: str | None = runtime(None)
    job_type: str = runtime("experiment")
    notes: str | None = runtime(None)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = runtime(())
    mode: Literal["auto", "online", "offline"] = runtime("auto")
    table_rows: Annotated[int, Field(ge=0)] = runtime(30)
    artifact_mib: Annotated[float, Field(ge=0)] = runtime(256.0)

    def open(self, run: RunInfo) -> Session:
        """Begin a W&B run. Raises UserError where it was to be online and can't be."""
        line = self.line()
        if line.mode == "disabled":
            return JsonlSession(run, self.table_rows)
        return WandbSession(self, run, line)

    def line(self) -> Line:
        """Decide whether to be online. Raises UserError where that was asked for and can't be."""
        import wandb

        asked = os.environ.get("WANDB_MODE", "auto") if self.mode == "auto" else self.mode
        if asked == "disabled":
            return Line(mode="disabled")
        if asked == "offline":
            return Line(mode="offline", why="as asked for")
        url = str(wandb.setup().settings.base_url)
        if not has_key(url):
            why = "no key: `wandb login` or WANDB_API_KEY"
        elif not reachable(url):
            why = f"{url} can't be reached"
        else:
            return Line(mode="online")
        if asked == "online":
            raise UserError(f"W&B can't be online ({why}): use tracker.mode=offline, and sync later")
        return Line(mode="offline", why=why)


class WandbSession(JsonlSession):
    """Logs to one W&B run what it has written."""

    def __init__(self, tracker: WandbTracker, run: RunInfo, line: Line) -> None:
        """Begin the file, then the W&B run."""
        super().__init__(run, tracker.table_rows)
        self._folder = run.folder
        # Under `wandb agent` the server has named the run already.
        identifier = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
        self._step, self._broken = 0, False
        name = os.environ.get("WANDB_NAME") or run_name(run.name, run.overrides)
        self._run = _Run(tracker, line, run.folder, run_event(run), identifier=identifier or run.id, name=name)
        self.write(self._run.note("begun"))

    def take(self, event: Event) -> None:
        """Log an event."""
        self._step += 1
        if self._broken:
            return
        try:
            self._run.take(self._step, event)
        except Exception as error:  # noqa: BLE001  (whatever W&B trips over, it must not end a run of days)
            self._broken = True
            why = " ".join(str(error).split()) or type(error).__name__
            say(f"  warning: W&B stopped taking this run ({why}); it goes on, and all is in {self._folder / METRICS}")
            with suppress(Exception):
                self._run.finish("broken", {})
            return
        if event["event"] == "end":
            self.write(self._run.note("whole"))
            write_json(self._folder / "manifest.json", lineage(list(read_events(self._folder / METRICS))))


class _Run:
    """One W&B run, to which events are logged."""

    def __init__(
        self, tracker: WandbTracker, line: Line, folder: Path, begin: Event, *, identifier: str, name: str
    ) -> None:
        """Begin it: online where `line` says so and W&B agrees, else offline, and say how to sync it."""
        import wandb
        from wandb.errors import CommError, UsageError

        self._wandb, self._folder, self._tracker = wandb, folder, tracker
        self._identifier, self._name, self._mode = identifier, name, line.mode
        self._axes = set[str]()
        try:
            self._run = self._init(begin)
        except (CommError, UsageError) as error:
            why = " ".join(str(error).split())
            if tracker.mode == "online" or self._mode == "offline":
                raise UserError(f"W&B can't begin a run ({why}): `wandb login`, or use tracker.mode=offline") from error
            line = Line(mode="offline", why=f"W&B refused: {why}")
            self._mode = "offline"
            self._run = self._init(begin)
        if self._mode == "offline":
            self.place = Path(self._run.settings.sync_dir)
            shown = shlex.quote(os.path.relpath(self.place))
            say(f"W&B offline ({line.why}); to sync it later: wandb sync {shown}")
        else:
            self.place = Path(str(self._run.url))
            say(f"W&B: {self._run.url}")

    def _init(self, begin: Event) -> Any:
        tracker = self._tracker
        in_sweep = bool(os.environ.get("WANDB_SWEEP_ID"))
        return self._wandb.init(
            mode=self._mode,
            project=None if in_sweep else tracker.project,
            entity=None if in_sweep else tracker.entity,
            id=self._identifier,
            resume="allow",
            name=self._name,
            group=begin["group"] or os.environ.get("WANDB_SWEEP_ID") or None,
            job_type=tracker.job_type,
            tags=list(tracker.tags),
            notes=tracker.notes if tracker.notes is not None else command(begin.get("overrides", ())),
            dir=str(self._folder),
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", init_timeout=30, save_code=False),
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
            "place": str(self.place),
        }

    def take(self, step: int, event: Event) -> None:
        """Log an event as this step."""
        if event["event"] == "stage":
            self._stage(step, event)
        elif event["event"] == "curve":
            self._point(step, event)
        elif event["event"] == "end":
            self.finish(event["status"], event["summary"])

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
        if "artifact" in event and event["artifact"]["stage"] in _KINDS:
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
        label, key, told = event["stage"], event["key"], event["artifact"]
        folder = self._folder.parent.parent / "artifacts" / told["stage"] / key
        metadata: dict[str, Any] = {"key": key, "stage": told["stage"], "inputs": [list(one) for one in told["inputs"]]}
        metadata |= {name: value for name, value in flattened(event["metrics"]).items() if value is not None}
        artifact = self._wandb.Artifact(
            f"{label.replace('/', '-')}-{key[:12]}", _KINDS[told["stage"]], metadata=metadata
        )
        for name in (RECORD, *told["files"]):
            file = folder / name
            if not file.is_file():
                continue  # pruned since: the record's digests are in the manifest
            if file.stat().st_size <= self._tracker.artifact_mib * _MIB:
                artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
            else:
                artifact.add_reference(file.as_uri(), name=name, checksum=False)
        self._run.log_artifact(artifact)

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write the summary and end the W&B run."""
        self._run.summary.update({**summary, "status": status})
        self._run.finish(exit_code=0 if status == "finished" else 1)


Replayed = Literal["replayed", "there already", "running", "nothing"]
"""What became of a run that was to be replayed."""


def to_wandb(runs: Iterable[Path], tracker: WandbTracker) -> dict[Path, Replayed]:
    """Fill W&B from the `metrics.jsonl` of runs (their folders), whether they ended or were killed.

    A run that W&B has as a whole is left alone, one that has only begun is filled up under the same id. Runs that
    still go on, and those that left no events, are passed over. Raises UserError where W&B can't begin a run.
    """
    line = tracker.line()
    if line.mode == "disabled":
        raise UserError("WANDB_MODE=disabled: unset it, or set tracker.mode, to fill W&B from stored runs")
    return {folder: _replayed(folder, tracker, line) for folder in runs}


def _replayed(folder: Path, tracker: WandbTracker, line: Line) -> Replayed:
    if not (folder / METRICS).is_file():
        return "nothing"
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return "running"
    try:
        found = list(read_events(folder / METRICS))
        events = [event for event in found if event["event"] in KINDS]
        notes = [event for event in found if event["event"] == NOTE]
        if not events or events[0]["event"] != "run":
            return "nothing"
        if any(_is_whole(note, tracker, line) for note in notes):
            return "there already"
        _replay(folder, events, notes, tracker, line)
        return "replayed"
    finally:
        lock.release()


def _is_whole(note: Event, tracker: WandbTracker, line: Line) -> bool:
    """Say whether this note tells of a W&B run that has everything, where the run is to go."""
    there = (note["entity"], note["project"]) == (tracker.entity, tracker.project)
    kept = note["mode"] == "online" or (line.mode == "offline" and Path(note["place"]).is_dir())
    return note["state"] == "whole" and there and kept


def _replay(folder: Path, events: Sequence[Event], notes: Sequence[Event], tracker: WandbTracker, line: Line) -> None:
    begin = events[0]
    called = notes[0] if notes else {"id": begin["id"], "name": run_name(begin["name"], begin.get("overrides", ()))}
    run = _Run(tracker, line, folder, begin, identifier=called["id"], name=called["name"])
    for step, event in enumerate(events[1:], start=1):
        run.take(step, event)
    if events[-1]["event"] != "end":
        run.finish("killed", {})
    torn = not (folder / METRICS).read_bytes().endswith(b"\n")
    with (folder / METRICS).open("a", encoding="utf-8") as stream:
        stream.write("\n" * torn + line_of(run.note("whole")))
    write_json(folder / "manifest.json", lineage(events))
