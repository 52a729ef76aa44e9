"""Progress of long work: a live bar on a terminal, plain lines (at most one every few seconds) elsewhere."""

import logging as logging_module
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress

_SECONDS_BETWEEN_LINES = 5.0

Detail = Callable[[], str]
"""Says in a few words what a count doesn't."""

console = Console(stderr=True, highlight=False, soft_wrap=True)


class Meter:
    """Counts the units (rows, requests, steps, ...) of one piece of work."""

    def __init__(self, label: str, total: int | None, unit: str, bar: "Progress | None", detail: Detail = str) -> None:
        """Start at zero of `total`, which may not be known; with `bar`, draw there, else print lines.

        `detail` has something to say beside the count.
        """
        self._label, self._total, self._unit, self._bar, self._detail = label, total, unit, bar, detail
        self._done = self._before = 0
        self._started = self._printed = time.monotonic()
        self._task = bar.add_task(label, total=total, detail="") if bar else None

    def resume_at(self, units: int) -> None:
        """Count `units` as done before now: they say nothing about the rate."""
        self._before = units
        self.advance(units)

    def advance(self, units: int = 1) -> None:
        """Count `units` more as done."""
        self._done += units
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self._done, detail=self._detail())
            return
        now = time.monotonic()
        if now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._printed = now
            elapsed = now - self._started
            rate = (self._done - self._before) / elapsed
            told = f", {detail}" if (detail := self._detail()) else ""
            if self._total is None:
                say(f"  {self._label}: {self._done} {self._unit}, {rate:.1f}/s{told}")
                return
            left = (self._total - self._done) / rate if rate else 0.0
            done = f"{self._done}/{self._total} {self._unit}, {rate:.1f}/s"
            say(f"  {self._label}: {done}{told}, about {left:.0f} s left")


@contextmanager
def metered(label: str, total: int | None, unit: str = "rows", detail: Detail = str) -> Iterator[Meter]:
    """Show the progress of a piece of work of `total` units (None: not known) while the block runs.

    `detail()` is shown beside it.
    """
    if not console.is_terminal:
        yield Meter(label, total, unit, None, detail)
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    told = TextColumn("{task.fields[detail]}")
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), told)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
        yield Meter(label, total, unit, bar, detail)


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what the model libraries say about themselves while the block runs: their errors still come through."""
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging

    verbosity, datasets_verbosity = logging.get_verbosity(), datasets_logging.get_verbosity()
    loggers = [logging_module.getLogger(name) for name in ("lm_eval", "lm-eval", "wandb")]
    levels = [logger.level for logger in loggers]
    logging.set_verbosity_error()
    datasets_logging.set_verbosity_error()
    for logger in loggers:
        logger.setLevel(logging_module.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", UserWarning)
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            datasets_logging.set_verbosity(datasets_verbosity)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def say(line: str) -> None:
    """Print one line about the work to standard error (standard output is for results)."""
    console.print(line, markup=False)
    sys.stderr.flush()
