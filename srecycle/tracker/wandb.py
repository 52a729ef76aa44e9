"""Weights & Biases: online with a key, offline without one, filled from the events of `metrics.jsonl`.

A W&B run is a function of a run's events, each logged at its number as W&B's step: what a live run logs and what is
replayed from the file later is the same, and logging it twice adds nothing, since W&B drops steps that it has. Whether
it is online is decided before it begins, and said once. Flat choices, thresholds and stage keys are what dashboards
group and filter by; the resolved tree stands under `cfg`, a name that no sweep locks. A training's curve has a step
axis of its own. Artifacts are logged with their keys and their inputs' keys as metadata, since W&B's own lineage works
online only: there, a run uses what it found and makes the rest.
"""

import itertools
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, Literal

import filelock
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.store import write_json
from srecycle.tracker import agent
from srecycle.tracker.artifacts import lineage
from srecycle.tracker.base import RunInfo, Session, Tracker
from srecycle.tracker.events import METRICS, Event, Told, append, read_run, run_event
from srecycle.tracker.jsonl import LOCK, MANIFEST, JsonlSession
from srecycle.tracker.labels import run_name
from srecycle.tracker.reachable import has_key, reachable
from srecycle.tracker.wandb_run import NOTE, Line, WandbRun


def library() -> Any:
    """Import W&B's library: it costs half a second, and only who tracks by it needs it."""
    import wandb

    # Each run would load W&B's launcher, which takes as long, to look for what only a launcher's own script leaves.
    wandb.Run._detect_and_apply_job_inputs = lambda run: None
    return wandb


@component
class WandbTracker(Tracker):
    """Logs to W&B. `mode` is "auto" (online with a key, offline without), "online" or "offline".

    A run is called by the experiment's name and what was set on the command line, unless WANDB_NAME says otherwise;
    `notes` stand in for that command line. Tables of samples have at most `table_rows` rows; files above `artifact_mib`
    are referred to, not uploaded. When a run ends, W&B has `finish_minutes` to take what it has not taken yet.
    """

    project: str = runtime("srecycle")
    entity: str | None = runtime(None)
    job_type: str = runtime("experiment")
    notes: str | None = runtime(None)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = runtime(())
    mode: Literal["auto", "online", "offline"] = runtime("auto")
    table_rows: Annotated[int, Field(ge=0)] = runtime(30)
    artifact_mib: Annotated[float, Field(ge=0)] = runtime(256.0)
    finish_minutes: Annotated[float, Field(gt=0)] = runtime(30.0)

    def open(self, run: RunInfo) -> Session:
        """Begin a W&B run. Raises UserError where it was to be online and can't be."""
        line = self.line()
        if line.mode == "disabled":
            return JsonlSession(run, self.table_rows)
        return WandbSession(self, run, line)

    def line(self) -> Line:
        """Decide whether to be online. Raises UserError where that was asked for and can't be."""
        asked = os.environ.get("WANDB_MODE", "auto") if self.mode == "auto" else self.mode
        if asked == "disabled":
            return Line(mode="disabled")
        if asked == "offline":
            return Line(mode="offline", why="as asked for")
        # W&B warns of every artifact that it has already, which for a stage that was found is how it should be.
        url = str(library().setup(library().Settings(silent=True)).settings.base_url)
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
    """Logs to one W&B run what it has written.

    It does so in a thread of its own: a slow upload, or a server that is gone, holds nothing up before the end.
    """

    def __init__(self, tracker: WandbTracker, run: RunInfo, line: Line) -> None:
        """Begin the file, then the W&B run."""
        super().__init__(run, tracker.table_rows)
        name, begin = os.environ.get("WANDB_NAME") or run_name(run.name, run.overrides), run_event(run)
        try:
            self._run = WandbRun(
                tracker, line, run.folder, begin, library=library(), identifier=agent.run_id(run), name=name
            )
        except BaseException:
            self.close()
            raise
        self.write(self._run.note("begun"))
        self._is_taken, self._patience = True, 60 * tracker.finish_minutes
        self._events = SimpleQueue[Event]()
        self._logging = threading.Thread(target=self._log, daemon=True)
        self._logging.start()

    def take(self, event: Event) -> None:
        """Have an event logged; after the last one, wait until all are."""
        self._events.put(event)
        if event["event"] != "end":
            return
        self._logging.join(self._patience)
        if self._logging.is_alive():
            say(f"  warning: W&B took too long; srecycle-report --to-wandb {self._folder.name} fills it up later")
        elif self._is_taken:
            self.write(self._run.note("whole"))

    def _log(self) -> None:
        for step in itertools.count(1):
            event = self._events.get()
            self._is_taken = self._is_taken and self._run.takes(step, event)
            if event["event"] == "end":
                return


Replayed = Literal["replayed", "there already", "running", "nothing", "refused by W&B"]
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
        told = read_run(folder)
        if told is None:
            return "nothing"
        if any(_is_whole(note, tracker, line) for note in told.notes):
            return "there already"
        return "replayed" if _replay(folder, told, tracker, line) else "refused by W&B"
    finally:
        lock.release()


def _is_whole(note: Event, tracker: WandbTracker, line: Line) -> bool:
    """Say whether this note tells of a W&B run that has everything, where the run is to go."""
    if note["event"] != NOTE or note["state"] != "whole":
        return False
    is_kept = note["mode"] == "online" or (line.mode == "offline" and Path(note["place"]).is_dir())
    return is_kept and (note["entity"], note["project"]) == (tracker.entity, tracker.project)


def _replay(folder: Path, told: Told, tracker: WandbTracker, line: Line) -> bool:
    begin, events = told.begin, told.events
    named = {"id": begin["id"], "name": run_name(begin["name"], begin.get("overrides", ()))}
    called = next((note for note in told.notes if note["event"] == NOTE), named)
    run = WandbRun(tracker, line, folder, begin, library=library(), identifier=called["id"], name=called["name"])
    if not all(run.takes(step, event) for step, event in enumerate(events[1:], start=1)):
        return False
    if events[-1]["event"] != "end":
        run.finish("killed", {})
    append(folder, run.note("whole"))
    write_json(folder / MANIFEST, lineage(events))
    return True
