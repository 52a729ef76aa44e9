"""The command line: Hydra composes the configuration, it becomes an Experiment, and the experiment runs.

Users' mistakes end in one line on standard error and exit code 2.
"""

import atexit
import errno
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from srecycle.compose import build, config_folder, guarded, worded
from srecycle.errors import UserError
from srecycle.report import callback

_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
_failed: list[str] = []
_at_work: list[DictConfig] = []
"""The job that has begun; empty while Hydra composes the next."""


def main() -> None:
    """Run the command line."""
    if not sys.stderr.isatty():  # the libraries' bars; our own progress prints plain lines there
        os.environ.setdefault("TQDM_DISABLE", "1")
    # SIGTERM unwinds like an exception, so that trackers and stages close what they have open.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Composing and building makes objects that stay. Looking for garbage among them took a quarter of the whole time of
    # commands that find everything in the store, and most of that when the process ends and gives all back anyway.
    gc.disable()
    atexit.register(gc.freeze)
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets its errors through, and we word them
    try:
        with guarded():
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(_job)()
    except UserError as error:
        _fail(error)
    except KeyboardInterrupt:
        from srecycle.progress import say

        say("srecycle: interrupted; the same command goes on where it stopped")
        sys.exit(130)
    except Exception as error:
        # Odd overrides make Hydra raise errors of any class; once a job has begun, only its own are the user's.
        composing = not _at_work or isinstance(error, HydraException | OmegaConfBaseException)
        if isinstance(error, OSError) and error.errno in _NO_PLACE:
            # Not even a sweep's list of failed jobs can be written: launchers hand this on.
            _say_failed(_no_place(error))
        elif wants_traceback or not composing:
            raise
        else:
            _fail(UserError(worded(error)))
    sys.exit(2 if _failed or callback.failed else 0)


def _job(config: DictConfig) -> None:
    """Run one job: one configuration of perhaps many. A user's mistake in one doesn't stop the others."""
    _at_work.append(config)
    try:
        mode, experiment = build(config)
        if not gc.isenabled():  # the first job
            gc.freeze()
            gc.enable()
        if mode == "plan":
            _plan(experiment)
        else:
            _run(experiment)
    except UserError as error:
        _fail(error)
    except OSError as error:
        _fail(_no_place(error))
    _at_work.clear()


def _no_place(error: OSError) -> UserError:
    """Word an error of a full or closed disk; raise any other again."""
    if error.errno not in _NO_PLACE:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    return UserError(f"{where}{error.strerror}; what is finished stays, free the way and run the same command again")


def _plan(experiment: Any) -> None:
    from srecycle.progress import say
    from srecycle.report.screen import show_plan
    from srecycle.runner import planned, rounds

    known = list(rounds(experiment))
    for one in known:
        if experiment.rounds > 1:
            say(one.name)
        show_plan(planned(one))
    if left := experiment.rounds - len(known):
        say(f"{left} more of {experiment.rounds} rounds start from what this one trains: planned once that is there")


def _run(experiment: Any) -> None:
    from srecycle.progress import say
    from srecycle.report.html import write_report
    from srecycle.report.runs import read_run
    from srecycle.report.screen import show_runs
    from srecycle.runner import run_rounds

    settings = HydraConfig.get()
    choices = {name: str(choice) for name, choice in settings.runtime.choices.items() if not name.startswith("hydra/")}
    folders = run_rounds(experiment, choices, list(settings.overrides.task))
    if settings.mode != RunMode.MULTIRUN:  # a sweep is compared as a whole when it ends
        results = [read_run(folder) for folder in folders]
        show_runs(results)
        say(f"report: {write_report(results, folders[-1] / 'report.html')}")


def _say_failed(error: UserError) -> str:
    from srecycle.progress import say

    # What a file or a server says may hold signs that command a terminal.
    told = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in " ".join(str(error).split()))
    _failed.append(told)
    say(f"srecycle: error: {told}")
    return told


def _fail(error: UserError) -> None:
    told = _say_failed(error)
    if HydraConfig.initialized() and (settings := HydraConfig.get()).mode == RunMode.MULTIRUN:
        # A launcher may have put this job into another process: the one that began the sweep reads it there.
        file = Path(settings.sweep.dir) / callback.FAILED
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"{' '.join(settings.overrides.task)}: {told}\n")


if __name__ == "__main__":
    main()
