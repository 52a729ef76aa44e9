"""The jobs of a study: run here one after the other, each result written when it is there.

    <store>/studies/<name>/   jobs/<job>.json (status, runs, seconds, reason), logs/<worker>.log, lock

A worker is a process that runs the jobs that its driver sends it. A job that fails by a user's mistake leaves a reason
and the worker goes on; a bug, or a kill, ends the worker, and the driver starts another one.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import hydra
from omegaconf import OmegaConf

from srecycle.compose import build
from srecycle.errors import UserError
from srecycle.runner import run_rounds
from srecycle.store import write_json
from srecycle.study.plan import Job
from srecycle.study.sweep import composing

JOB = "job"
"""The choice of a run that names its job."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job: the runs that it left (one a round), how long it took (seconds), or why it failed."""

    id: str
    status: Literal["finished", "failed"]
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a study's results lie in a store."""

    store: Path
    name: str

    @property
    def folder(self) -> Path:
        """The study's own folder."""
        return self.store / "studies" / self.name

    def write(self, result: Result) -> None:
        """Write a result, in place of an earlier one."""
        write_json(self.folder / "jobs" / f"{result.id}.json", asdict(result))

    def results(self, jobs: Mapping[str, Job]) -> dict[str, Result]:
        """Return the results of these jobs that are there; one whose runs were removed is not."""
        found = {}
        for name in jobs:
            file = self.folder / "jobs" / f"{name}.json"
            if file.is_file():
                content = json.loads(file.read_text())
                result = Result(**{**content, "runs": tuple(content["runs"])})
                if all((self.store / "runs" / run / "run.json").is_file() for run in result.runs):
                    found[name] = result
        return found

    def kept(self, result: Result) -> int:
        """Return how many rows a job's last run kept. Raises UserError where it kept none."""
        folder = self.store / "runs" / result.runs[-1]
        kept = json.loads((folder / "run.json").read_text())["metrics"].get("assemble/kept")
        if not kept:
            raise UserError(f"the run {folder.name} kept no rows: no other arm can be given as many")
        return int(kept)


def serve(pipe: "Connection[Result, Job | None]", place: Place, log: Path) -> None:
    """Run the jobs that come through the pipe, until None comes; every one is answered with its result."""
    _settle(place, log)
    while (job := pipe.recv()) is not None:
        result = run_job(job, place)
        place.write(result)
        pipe.send(result)


def run_job(job: Job, place: Place) -> Result:
    """Run a job, and return what became of it."""
    started, worked = time.monotonic(), time.process_time()
    print(f"\n{job.label}: srecycle {' '.join(job.overrides)}", file=sys.stderr, flush=True)  # noqa: T201
    try:
        runs, reason = _runs(job, place), ""
    except UserError as error:
        runs, reason = (), " ".join(str(error).split())
        print(f"failed: {reason}", file=sys.stderr, flush=True)  # noqa: T201
    return Result(
        id=job.id,
        status="failed" if reason else "finished",
        runs=runs,
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(time.process_time() - worked, 1),
        reason=reason,
    )


def _runs(job: Job, place: Place) -> tuple[str, ...]:
    with composing():
        config = hydra.compose("config", overrides=list(job.overrides), return_hydra_config=True)
        OmegaConf.set_struct(config, False)
        chosen = config.pop("hydra").runtime.choices
        mode, experiment = build(config)
    if mode != "run":
        raise UserError(f"{job.label} sets mode={mode}: a study runs")
    choices = {name: str(choice) for name, choice in chosen.items() if not name.startswith("hydra/")}
    experiment = replace(experiment, store=place.store, group=place.name, name=job.label)
    folders: Sequence[Path] = run_rounds(experiment, choices | {JOB: job.id}, list(job.overrides))
    return tuple(folder.name for folder in folders)


def _settle(place: Place, log: Path) -> None:
    """Make a worker of this process: its output goes into a log, and it ends with its driver."""
    stream = log.open("ab", buffering=0)
    for number in (1, 2):
        os.dup2(stream.fileno(), number)
    os.environ |= {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "SRECYCLE_STORE": str(place.store)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the driver's to pass on
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_driver, daemon=True).start()


def _end_with_driver() -> None:
    """End this process at once when the one that started it is gone, whatever killed it."""
    driver = parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
