"""What an engine is: it maps a function over the items of a stage, shard by shard, and survives being killed.

The plan (which items form which shard) is written before any work and kept while the artifact is being made, so a
resumed stage forms the same shards whatever its settings are now. A finished shard is a file in the scratch folder.
Engines never change a result, so every field is a runtime field and none is part of any key.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.progress import Detail
from srecycle.store import write_json, write_table

Item = TypeVar("Item")


@component
class Engine(Component, ABC):
    """Maps work over shards of at most `shard_rows` items."""

    shard_rows: Annotated[int, Field(ge=1)] = runtime(512)

    @abstractmethod
    def map_shards(
        self,
        label: str,
        items: Sequence[Item],
        function: Callable[[Sequence[Item]], pa.Table],
        scratch: Path,
        detail: Detail = str,
    ) -> pa.Table:
        """Return the concatenation of `function(shard)` over all shards, in item order; `detail` is shown meanwhile."""


def planned_shards(scratch: Path, count: int, shard_rows: int) -> list[range]:
    """Return the shards of `count` items as planned, writing the plan where there is none yet."""
    plan = scratch / "plan.json"
    if not plan.exists():
        write_json(plan, {"items": count, "shard_rows": shard_rows})
    planned = json.loads(plan.read_text())
    assert planned["items"] == count, f"{plan} was made for {planned['items']} items, not {count}"
    size = int(planned["shard_rows"])
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def shard_file(scratch: Path, number: int) -> Path:
    """Return where a shard's result stands."""
    return scratch / f"shard-{number:06d}.parquet"


def finish_shard(scratch: Path, number: int, table: pa.Table) -> None:
    """Keep a shard's result, whole or not at all."""
    write_table(shard_file(scratch, number), table)


def gathered(scratch: Path, count: int) -> pa.Table:
    """Return the results of all shards as one table of one chunk, so that its bytes don't tell how it was made."""
    return pa.concat_tables(pq.read_table(shard_file(scratch, number)) for number in range(count)).combine_chunks()
