"""An engine that dies between two shards, so that what it left can be gone on from."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from srecycle.config import component, runtime
from srecycle.engine.base import Workers
from srecycle.engine.local import LocalEngine


class KilledError(Exception):
    """What stops a stage between two shards."""


@component
class Mortal(LocalEngine):
    """Works on so many shards, and dies where it is given one more."""

    shards: int = runtime()

    @contextmanager
    def at_work(self, *given: Any) -> Iterator[Workers[Any, Any]]:
        numbers = itertools.count()
        with super().at_work(*given) as workers:

            def mortal(shard: Sequence[Any]) -> Any:
                if next(numbers) == self.shards:
                    raise KilledError
                return workers.work(shard)

            yield dataclasses.replace(workers, work=mortal)
