"""The jobs of a sweep, each an `srecycle` process of its own, some of them at once.

A job's result is written when it ends; what has no result is still to be done. Whatever ends the driver ends its jobs:
each is asked to (SIGTERM, upon which a run closes what it has open), and killed when it takes too long. Where a driver
is killed itself, the kernel asks them (on Linux; elsewhere they finish what they do).
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srecycle.config import fingerprint
from srecycle.sweep.file import Value

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One setting of a sweep, and the whole command line that it makes."""

    values: Mapping[str, Value]
    overrides: tuple[str, ...]

    @property
    def id(self) -> str:
        """The name of the job's files: the same settings have the same one."""
        return fingerprint(list(self.overrides))[:12]

    @property
    def told(self) -> str:
        """What sets the job apart."""
        return ", ".join(f"{name.lstrip('+')}={value}" for name, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A job that has ended: its exit code (negative: the signal), how long it took (seconds), and its log."""

    job: Job
    code: int
    began: str
    seconds: float
    log: Path


@dataclass(frozen=True, kw_only=True)
class _Running:
    process: subprocess.Popen[bytes]
    job: Job
    slot: int
    began: str
    started: float
    log: Path


def run_jobs(
    following: Callable[[], Job | None],
    ended: Callable[[Ended], None],
    *,
    at_once: int,
    logs: Path,
    gpus: Sequence[str] = (),
) -> None:
    """Run what `following` names until it names nothing more and all have ended; `ended` is told of each.

    Of `gpus` (as CUDA_VISIBLE_DEVICES numbers them) each job has one, in turn.
    """
    running: list[_Running] = []
    try:
        while True:
            while len(running) < at_once and (job := following()) is not None:
                slot = min(set(range(at_once)) - {one.slot for one in running})
                running.append(_start(job, slot, logs / f"{job.id}.log", _environment(at_once, slot, gpus, job)))
            if not running:
                return
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                ended(_ended(one))
            time.sleep(_POLL_SECONDS)
    finally:
        _stop([one.process for one in running])


def _start(job: Job, slot: int, log: Path, environment: Mapping[str, str]) -> _Running:
    began = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "srecycle", *job.overrides],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is ours to pass on
            preexec_fn=_tied_to(os.getpid()),  # noqa: PLW1509  (it asks the kernel, and touches nothing of ours)
        )
    return _Running(process=process, job=job, slot=slot, began=began, started=time.monotonic(), log=log)


def _tied_to(driver: int) -> Callable[[], None] | None:
    """Return what a new process calls to be asked to end when its driver dies; None where that can't be had."""
    if sys.platform != "linux":
        return None
    kernel = ctypes.CDLL(None)  # loaded here: after a fork, little is safe

    def tie() -> None:
        kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != driver:  # it died before we asked
            os.kill(os.getpid(), signal.SIGTERM)

    return tie


def _environment(at_once: int, slot: int, gpus: Sequence[str], job: Job) -> dict[str, str]:
    """Share cores and devices out, and call the W&B run by what sets the job apart."""
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))} if at_once > 1 else {}
    environment |= os.environ
    if job.told:
        environment["WANDB_NAME"] = job.told[:120]
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return environment


def _ended(one: _Running) -> Ended:
    seconds = time.monotonic() - one.started
    return Ended(job=one.job, code=one.process.returncode, began=one.began, seconds=seconds, log=one.log)


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    limit = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
