"""A sweep: the settings of a file, run one after the other or several at once, and gone on with where it was stopped.

    <store>/sweeps/<name>/   plan.json (the settings, in order), results/<job>.json, logs/<job>.log,
                             summary.csv, report.html

The runs are the store's, of the group <name>. A second call with the same file does what is missing: jobs that never
ended, and those that failed. More values in the file, or a higher count, add jobs; the others' results stand.
"""

import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import filelock
import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from srecycle.compose import build, worded
from srecycle.errors import UserError
from srecycle.experiment import Experiment
from srecycle.progress import say
from srecycle.report.runs import Run, read_run, read_runs
from srecycle.store import Store, write_json
from srecycle.study.sweep import composing
from srecycle.sweep.file import SweepFile, arguments
from srecycle.sweep.jobs import Ended, Job, run_jobs
from srecycle.sweep.propose import Setting, Tried, bayes_library, drawn, grid, promising

_ATTEMPTS = 20


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job: the run that it left, the metric where there is one, and the reason where there isn't."""

    id: str
    values: Mapping[str, Any]
    status: Literal["finished", "failed"]
    run: str = ""
    metric: float | None = None
    seconds: float = 0.0
    reason: str = ""


class Sweep:
    """A sweep's folder, its plan and its results."""

    def __init__(self, file: SweepFile, overrides: Sequence[str], *, count: int | None, seed: int) -> None:
        """Plan it. Raises UserError where the overrides and the file contradict each other, or no setting builds."""
        self.file, self.seed = file, seed
        self.fixed = _merged(file, overrides)
        self.count = _count(file, count)
        self.jobs = [self._job(setting) for setting in self._settings()]
        drafts = (self._job(promising(file, [], seed + 1000 * attempt)) for attempt in range(_ATTEMPTS))
        experiment = _first_built(self.jobs or drafts)
        self.group = experiment.group
        self.store = Store(experiment.store)
        self.folder = self.store.root / "sweeps" / self.group
        self.results: dict[str, Result] = {}

    def run(self, *, at_once: int, gpus: Sequence[str] = ()) -> None:
        """Run what is missing. Whatever stops this stops its jobs; the same call goes on later.

        Raises UserError where another process is running this sweep.
        """
        with self._held():
            self._recall()
            self._begun: set[str] = set()
            left = sum(self._is_missing(job) for job in self.jobs)
            say(f"{self.group}: {len(self.jobs) - left} of {self.count or len(self.jobs)} settings are done")
            run_jobs(self._following, self._note, at_once=at_once, logs=self.folder / "logs", gpus=gpus)

    def runs(self) -> list[Run]:
        """Return the runs that finished, in the order of the plan."""
        known = {run.id: run for run in read_runs(self.store.root, self.group)}
        found = (self.results.get(job.id) for job in self.jobs)
        return [known[one.run] for one in found if one and one.run in known]

    def outcomes(self) -> list[Result]:
        """Return the results, in the order of the plan."""
        return [replace(self.results[job.id], values=job.values) for job in self.jobs if job.id in self.results]

    def _settings(self) -> list[Setting]:
        if self.file.method == "grid":
            return grid(self.file)[: self.count]
        if self.file.method == "random":
            return drawn(self.file, self.count or 0, self.seed)
        bayes_library()
        return []

    def _job(self, values: Setting) -> Job:
        return Job(values=values, overrides=(*self.fixed, *arguments(values)))

    @contextmanager
    def _held(self) -> Iterator[None]:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        (self.folder / "results").mkdir(exist_ok=True)
        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"{self.folder} is being worked on by another process: wait, or give it a name") from None
        try:
            yield
        finally:
            lock.release()

    def _recall(self) -> None:
        """Read what is there: settings that were proposed, results, and runs whose driver didn't live to note them."""
        for file in (self.folder / "results").glob("*.json"):
            found = Result(**json.loads(file.read_text()))
            self.results[found.id] = found
        if self.file.method == "bayes":
            self.jobs += [job for job in self._proposed_before() if not self._is_missing(job) or self._allows(job)]
        self._write_plan()
        finished = [run for run in read_runs(self.store.root, self.group) if run.status == "finished"]
        by_overrides = {tuple(run.overrides): run for run in finished}
        for job in self.jobs:
            run = by_overrides.get(job.overrides)
            if self._is_missing(job) and run is not None:
                self._keep(self._measured(job, run, run.seconds))

    def _proposed_before(self) -> list[Job]:
        plan = self.folder / "plan.json"
        settings = json.loads(plan.read_text())["settings"] if plan.is_file() else []
        names = [one.name for one in self.file.parameters]
        return [self._job({name: one[name] for name in names}) for one in settings if set(one) == set(names)]

    def _allows(self, job: Job) -> bool:
        """Say whether the file still allows a setting that was proposed before."""
        return all(one.allows(job.values[one.name]) for one in self.file.parameters)

    def _is_missing(self, job: Job) -> bool:
        return job.id not in self.results or self.results[job.id].status == "failed"

    def _following(self) -> Job | None:
        """Return the next job to start, or None where there is none."""
        for job in self.jobs:
            if job.id not in self._begun and self._is_missing(job):
                self._begun.add(job.id)
                return job
        if self.file.method == "bayes" and len(self.jobs) < (self.count or 0):
            return self._proposed()
        return None

    def _proposed(self) -> Job | None:
        known = {job.id for job in self.jobs}
        tried = [self._tried(job) for job in self.jobs]
        for attempt in range(_ATTEMPTS):
            job = self._job(promising(self.file, tried, self.seed + 1000 * attempt))
            if job.id not in known:
                self.jobs.append(job)
                self._write_plan()
                self._begun.add(job.id)
                return job
        say(f"{self.group}: no setting is left that wasn't tried")
        return None

    def _tried(self, job: Job) -> Tried:
        found = self.results.get(job.id)
        return Tried(values=job.values, metric=found.metric if found else None, running=found is None)

    def _note(self, ended: Ended) -> None:
        """Write down how a job ended."""
        folders = sorted(path.parent for path in (self.store.root / "runs").glob("*/run.json"))
        young = [read_run(folder) for folder in folders if folder.name >= ended.began]  # ids begin with the time
        own = [run for run in young if tuple(run.overrides) == ended.job.overrides]
        if ended.code == 0 and own:
            result = self._measured(ended.job, own[-1], ended.seconds)
        else:
            reason = _reason(ended)
            run = own[-1].id if own else ""
            result = Result(
                id=ended.job.id,
                values=ended.job.values,
                status="failed",
                run=run,
                seconds=ended.seconds,
                reason=reason,
            )
        self._keep(result)
        shown = f"{result.metric:.4g}" if result.metric is not None else result.reason or "finished"
        self._say(ended.job, f"{shown} ({ended.seconds:.0f} s)")

    def _measured(self, job: Job, run: Run, seconds: float) -> Result:
        value = run.metrics.get(self.file.metric) if self.file.metric else None
        missing = self.file.metric is not None and not isinstance(value, int | float)
        return Result(
            id=job.id,
            values=job.values,
            status="finished",
            run=run.id,
            metric=None if value is None or missing else float(value),
            seconds=round(seconds, 3),
            reason=f"the run has no {self.file.metric}" if missing else "",
        )

    def _say(self, job: Job, what: str) -> None:
        done = sum(job.id in self.results for job in self.jobs)
        say(f"[{done}/{self.count or len(self.jobs)}] {job.told}: {what}")

    def _keep(self, result: Result) -> None:
        self.results[result.id] = result
        write_json(self.folder / "results" / f"{result.id}.json", asdict(result))

    def _write_plan(self) -> None:
        plan = {
            "method": self.file.method,
            "metric": self.file.metric,
            "seed": self.seed,
            "fixed": list(self.fixed),
            "settings": [dict(job.values) for job in self.jobs],
            "jobs": [job.id for job in self.jobs],
        }
        write_json(self.folder / "plan.json", plan)


def _merged(file: SweepFile, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return what every run is given: the file's own, replaced by the user's where both set a key."""
    swept = {one.name.lstrip("+") for one in file.parameters}
    if twice := [one for one in overrides if _key(one) in swept]:
        raise UserError(f"{twice[0]}: the file sweeps {_key(twice[0])} itself; leave one of them out")
    if any(_key(one) == "mode" for one in overrides):
        raise UserError("mode is always run in a sweep: --dry-run lists what would be run")
    merged = {_key(one): one for one in (f"group={file.name}", *file.fixed, *overrides)}
    return tuple(merged.values())


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _count(file: SweepFile, count: int | None) -> int | None:
    caps = [one for one in (count, file.run_cap) if one is not None]
    if file.method != "grid" and not caps:
        raise UserError(f"method {file.method} has no end of its own: give --count N, or run_cap in the file")
    return min(caps) if caps else None


def _first_built(jobs: Iterable[Job]) -> Experiment:
    """Return the experiment of the first setting that builds; those that don't fail by themselves when they are run.

    Raises UserError where none builds: then it's the file, or what every run is given.
    """
    reasons = list[str]()
    with composing():
        for job in jobs:
            try:
                experiment: Experiment = build(hydra.compose("config", overrides=list(job.overrides)))[1]
                experiment.plan()
                return experiment
            except UserError as error:
                reasons.append(str(error))
            except (HydraException, OmegaConfBaseException) as error:
                reasons.append(worded(error))
    raise UserError(f"no setting of this sweep can be run; the first: {reasons[0]}")


def _reason(ended: Ended) -> str:
    """Say why a job failed, in the words that it ended with."""
    lines = [line.strip() for line in ended.log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("srecycle: error:")] or lines
    last = told[-1].removeprefix("srecycle: error: ") if told else "it said nothing"
    if ended.code == 0:
        return f"it left no run: {last}"
    by = f"{signal.Signals(-ended.code).name}; " if ended.code < 0 else ""
    return f"{by}{last}"
