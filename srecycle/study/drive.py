"""The driver of a study: it hands jobs to worker processes until all are done, and goes on where it stopped.

Jobs of one place share data, replies and likelihoods, so a worker stays where it is as long as there is something left,
and then goes where no other one is. What failed is tried again by the next call, not by this one. Whatever ends the
driver ends its workers; a stage that they were at goes on, or begins again, next time.
"""

import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from statistics import median

import filelock

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.study.jobs import Place, Result, serve
from srecycle.study.plan import Job, Plan

_GRACE_SECONDS = 30.0
_JOBS_A_WORKER = 40
"""Libraries keep some memory of every model; a fresh process costs seconds."""


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Job | None, Result]"
    number: int
    place: str = ""
    job: Job | None = None
    left: int = _JOBS_A_WORKER


@dataclass
class Driver:
    """Runs a plan's jobs, `at_once` of them side by side, in a store."""

    plan: Plan
    place: Place
    at_once: int
    results: dict[str, Result] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run what is missing. Raises UserError where another process is at it."""
        with self._held():
            self.results = {
                name: one for name, one in self.place.results(self.plan.jobs).items() if one.status == "finished"
            }
            left = len(self.plan.jobs) - len(self.results)
            say(f"{self.plan.name}: {len(self.results)} of {len(self.plan.jobs)} runs are done")
            workers: list[_Worker] = []
            try:
                workers += [self._started(number) for number in range(min(self.at_once, left))]
                while self._waiting() or any(worker.job for worker in workers):
                    self._feed(workers)
                    self._listen(workers)
            finally:
                _stop(workers)

    @contextmanager
    def _held(self) -> Iterator[None]:
        for name in ("jobs", "logs"):
            (self.place.folder / name).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.place.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"{self.place.folder} is being worked on by another process: wait for it") from None
        try:
            yield
        finally:
            lock.release()

    def _started(self, number: int) -> _Worker:
        context = multiprocessing.get_context("spawn")
        own, theirs = context.Pipe()
        log = self.place.folder / "logs" / f"{number}.log"
        process = context.Process(target=serve, args=(theirs, self.place, log), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process=process, pipe=own, number=number)

    def _feed(self, workers: list[_Worker]) -> None:
        """Give every idle worker a job."""
        for place, worker in enumerate(workers):
            if worker.job is None and (job := self._following(worker, workers)) is not None:
                if worker.left == 0:
                    _stop([worker])
                    workers[place] = worker = self._started(worker.number)
                self._begun.add(job.id)
                worker.job, worker.place, worker.left = job, job.place, worker.left - 1
                self._send(worker, job)

    def _waiting(self) -> list[Job]:
        return [job for job in self.plan.jobs.values() if job.id not in self._begun and job.id not in self.results]

    def _following(self, worker: _Worker, workers: list[_Worker]) -> Job | None:
        """Return the next job for a worker, or None where there is none that can be begun."""
        ready = [job for job in self._waiting() if not job.rows_of or job.rows_of in self.results]
        taken = {one.place for one in workers if one is not worker and one.job is not None}
        near = [job for job in ready if job.place == worker.place]
        free = [job for job in ready if job.place not in taken]
        return next(iter([*near, *free, *ready]), None)

    def _send(self, worker: _Worker, job: Job) -> None:
        """Send a job, with the number of rows that it is given; where there is none, it has failed."""
        try:
            if job.rows_of:
                reference = self.results[job.rows_of]
                if reference.status == "failed":
                    raise UserError(f"the run whose count of rows it takes failed: {reference.reason}")
                rows = self.place.kept(reference)
                given = (f"keep.top_random.rows={rows}", "keep.top_random.fraction=null")
                job = replace(job, overrides=(*job.overrides, *given))
            worker.pipe.send(job)
        except UserError as error:
            result = Result(id=job.id, status="failed", reason=" ".join(str(error).split()))
            self.place.write(result)
            self._note(worker, result)
        except OSError:
            pass  # the worker is gone: listening finds out, and says so

    def _listen(self, workers: list[_Worker]) -> None:
        """Wait for a result, or for a worker's end."""
        busy = {worker.pipe: worker for worker in workers if worker.job is not None}
        for ready in wait(list(busy)) if busy else ():
            worker = busy[ready]  # type: ignore[index]
            try:
                self._note(worker, worker.pipe.recv())
            except (EOFError, OSError):
                self._note(worker, self._lost(worker))
                workers[workers.index(worker)] = self._started(worker.number)

    def _lost(self, worker: _Worker) -> Result:
        """Return, and write, the result of a job whose worker ended under it."""
        assert worker.job is not None
        worker.process.join()
        code = worker.process.exitcode or 0
        told = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        log = self.place.folder / "logs" / f"{worker.number}.log"
        result = Result(
            id=worker.job.id, status="failed", reason=f"its process ended {told}; the end of {log} says why"
        )
        self.place.write(result)
        return result

    def _note(self, worker: _Worker, result: Result) -> None:
        self.results[result.id] = result
        worker.job = None
        if result.seconds:
            self._seconds.append(result.seconds)
        done, every = len(self.results), len(self.plan.jobs)
        told = result.reason or f"{result.seconds:.0f} s"
        say(f"[{done}/{every}] {self.plan.jobs[result.id].label}: {told}{self._left(every - done)}")

    def _left(self, jobs: int) -> str:
        """Say about how long the rest takes: what a run took here, in the middle of the last ones."""
        if not jobs or not self._seconds:
            return ""
        minutes = jobs * median(self._seconds[-_RECENT:]) / self.at_once / 60
        until = time.strftime("%H:%M", time.localtime(time.time() + 60 * minutes))
        return f"; about {minutes:.0f} min left, until {until}"


_RECENT = 30


def _stop(workers: list[_Worker]) -> None:
    """End workers: those at work are asked to, and killed when they take too long."""
    for worker in workers:
        if worker.job is None and worker.process.is_alive():
            try:
                worker.pipe.send(None)
            except OSError:
                continue
        else:
            worker.process.terminate()
    limit = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, limit - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()


def failures(plan: Plan, results: Mapping[str, Result]) -> dict[str, str]:
    """Return why jobs failed, by their labels."""
    return {plan.jobs[name].label: one.reason for name, one in results.items() if one.status == "failed"}
