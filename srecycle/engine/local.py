"""The engine of one machine: shards one after the other, or several at a time in threads that share what is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from srecycle.config import component, runtime
from srecycle.engine.base import Engine, Item, Made, Mapper, Work, Workers, settle


@component
class LocalEngine(Engine):
    """Maps `workers` shards at a time in this process."""

    workers: Annotated[int, Field(ge=1)] = runtime(1)

    @contextmanager
    def at_work(self, work: Work[Item, Made], scratch: Path) -> Iterator[Workers[Item, Made]]:
        """Load here, where there is something to load."""
        if not isinstance(work, Mapper):
            yield Workers(work=work, count=self.workers)
            return
        found = work.load()
        try:
            settle(work, scratch, found)
            work.adopt()
            yield Workers(work=work, count=self.workers)
        finally:
            work.close()  # an interruption reaches the main thread only


HERE: Final = LocalEngine(shard_rows=512, workers=1)
"""One shard after the other, where nobody chose otherwise."""
