"""The engine of one machine: shards one after the other, or several at a time in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.engine.base import Engine, Item, finish_shard, gathered, planned_shards, shard_file
from srecycle.progress import Detail, metered


@component
class LocalEngine(Engine):
    """Runs `workers` shards at a time on this machine."""

    workers: Annotated[int, Field(ge=1)] = runtime(1)

    def map_shards(
        self,
        label: str,
        items: Sequence[Item],
        function: Callable[[Sequence[Item]], pa.Table],
        scratch: Path,
        detail: Detail = str,
    ) -> pa.Table:
        """Return the concatenation of `function(shard)` over all shards, in item order."""
        shards = planned_shards(scratch, len(items), self.shard_rows)
        left = [number for number in range(len(shards)) if not shard_file(scratch, number).exists()]

        def work(number: int) -> int:
            shard = shards[number]
            finish_shard(scratch, number, function(items[shard.start : shard.stop]))
            return len(shard)

        with metered(label, len(items), detail=detail) as meter:
            meter.resume_at(len(items) - sum(len(shards[number]) for number in left))
            if self.workers == 1:
                for number in left:
                    meter.advance(work(number))
            else:
                pool = ThreadPoolExecutor(self.workers)
                try:
                    for done in as_completed([pool.submit(work, number) for number in left]):
                        meter.advance(done.result())
                except BaseException:
                    # Shards under way are not waited for: what they wait for themselves is the stage's to end.
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
                pool.shutdown()
        return gathered(scratch, len(shards))
