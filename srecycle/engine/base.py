"""What an engine is: it maps work over the items of a stage, shard by shard, and survives being killed.

The plan (which items form which shard) is written before any work and kept while the artifact is being made, so a
resumed stage forms the same shards whatever its settings are now. A finished shard is a file in the scratch folder,
which only the stage's own process writes.

Work is a `Mapper` where it can be done by other processes, which load for themselves what they need; a plain function
is only ever called in this one, and may hold whatever it likes (the ledger, a client).

Engines never change a result, so every field is a runtime field and none is part of any key.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.progress import Detail, metered
from srecycle.store import write_json, write_table

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
Made = TypeVar("Made")
Settings = TypeVar("Settings", bound=Component)


class Mapper(ABC, Generic[Settings, Item, Made]):
    """What is done to a shard's items, as an object that can be sent to other processes before it is loaded.

    `settings` are the components that decide its results; they are sent without what they hold in memory. What a worker
    finds out when it loads and all workers must agree on (how many tokens a batch may have) is named in `settles`: the
    first to load decides, and the plan keeps it. `told` is what each worker counted so far.
    """

    settles: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Settings) -> None:
        """Hold settings; loads nothing."""
        self.settings = settings
        self.settled: dict[str, Any] = {}
        self.heard: dict[str, dict[str, Any]] = {}
        self.since = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "settings": bare(self.settings)}

    @abstractmethod
    def load(self) -> Mapping[str, Any]:
        """Make what is heavy (a model), and return what this worker would have settled."""

    @abstractmethod
    def __call__(self, items: Sequence[Item]) -> Made:
        """Map a shard. Threads may call this at the same time."""

    @abstractmethod
    def name(self, item: Item) -> str:
        """Return the id of the row that an item belongs to, for messages."""

    def adopt(self) -> None:
        """Work by what stands in `settled` from now on: called once it is loaded, and before it maps."""
        return

    def counts(self) -> dict[str, Any]:
        """Return what this worker counted since it was loaded."""
        return {}

    def close(self) -> None:
        """End: threads that are still at work stop at their next batch."""
        return

    @property
    def told(self) -> list[dict[str, Any]]:
        """What each worker counted so far, in this process or in others."""
        return list(self.heard.values()) or ([self.counts()] if self.since else [])

    @property
    def seconds(self) -> float:
        """The seconds since the first worker was loaded."""
        return time.monotonic() - self.since if self.since else 0.0


class Items(Protocol[Item_co]):
    """What is mapped over: a list, or what is read as it is sliced."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, places: slice, /) -> Sequence[Item_co]:
        """Return those at these places. Threads may call this at the same time."""


Work = Mapper[Any, Item, Made] | Callable[[Sequence[Item]], Made]


@dataclass(frozen=True, kw_only=True)
class Workers(Generic[Item, Made]):
    """Workers that are there: `work` has one of them map a shard, and waits for it; `count` of them do so at a time."""

    work: Callable[[Sequence[Item]], Made]
    count: int


@component
class Engine(Component, ABC):
    """Maps work over shards of at most `shard_rows` items."""

    elsewhere: ClassVar[bool] = False
    """Whether mappers are loaded in other processes, on machines that may have other devices."""

    shard_rows: Annotated[int, Field(ge=1)] = runtime(512)

    def check(self) -> None:
        """Raise UserError where something that the engine needs is missing. Starts nothing."""
        return

    @abstractmethod
    def at_work(self, work: Work[Item, Made], scratch: Path) -> AbstractContextManager[Workers[Item, Made]]:
        """Start workers, and end them with the block. What they settle is kept in `scratch`."""

    def map_shards(
        self, label: str, items: Items[Item], work: Work[Item, pa.Table], scratch: Path, detail: Detail = str
    ) -> "Shards":
        """Return `work(shard)` of all shards, in item order; `detail` is shown meanwhile.

        Of `items`, the shards that are being worked at are sliced, and nothing else is read.
        """
        shards = planned_shards(scratch, len(items), self.shard_rows)
        left = [number for number in range(len(shards)) if not shard_file(scratch, number).exists()]
        if left or not _settled_before(work, scratch):
            with self.at_work(work, scratch) as workers, metered(label, len(items), detail=detail) as meter:

                def finish(number: int) -> int:
                    shard = shards[number]
                    finish_shard(scratch, number, workers.work(items[shard.start : shard.stop]))
                    return len(shard)

                meter.resume_at(len(items) - sum(len(shards[number]) for number in left))
                for rows in _each(finish, left, workers.count):
                    meter.advance(rows)
        return Shards(scratch=scratch, count=len(shards))


@dataclass(frozen=True, kw_only=True)
class Shards:
    """What the shards of a stage gave, in item order, read one after the other."""

    scratch: Path
    count: int

    def __iter__(self) -> Iterator[pa.Table]:
        for number in range(self.count):
            yield pq.read_table(shard_file(self.scratch, number))

    def table(self) -> pa.Table:
        """Return all of it as one table of one chunk, so that its bytes don't tell how it was made."""
        return pa.concat_tables(self).combine_chunks()


def _each(finish: Callable[[int], int], numbers: Sequence[int], at_a_time: int) -> Iterator[int]:
    """Yield what `finish` returns for each number, so many at a time, as they come."""
    if at_a_time == 1:
        yield from map(finish, numbers)
        return
    pool = ThreadPoolExecutor(at_a_time)
    try:
        for done in as_completed([pool.submit(finish, number) for number in numbers]):
            yield done.result()
    except BaseException:
        # Shards under way are not waited for: what they wait for themselves is the stage's to end.
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def planned_shards(scratch: Path, count: int, shard_rows: int) -> list[range]:
    """Return the shards of `count` items as planned, writing the plan where there is none yet."""
    plan = scratch / "plan.json"
    if not plan.exists():
        write_json(plan, {"items": count, "shard_rows": shard_rows})
    planned = json.loads(plan.read_text())
    assert planned["items"] == count, f"{plan} was made for {planned['items']} items, not {count}"
    size = int(planned["shard_rows"])
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def settle(mapper: Mapper[Any, Any, Any], scratch: Path, found: Mapping[str, Any]) -> None:
    """Keep what the first worker found with the plan, where that doesn't have it yet, and let the mapper know."""
    for name in mapper.settles:
        if not _settled(scratch, name).exists():
            write_json(_settled(scratch, name), {name: found[name]})
    assert _settled_before(mapper, scratch)
    mapper.since = time.monotonic()


def _settled_before(work: Work[Any, Any], scratch: Path) -> bool:
    """Say whether the plan has all that is to be settled, and if so let the mapper know."""
    if not isinstance(work, Mapper):
        return True
    files = {name: _settled(scratch, name) for name in work.settles}
    if not all(file.exists() for file in files.values()):
        return False
    work.settled = {name: json.loads(file.read_text())[name] for name, file in files.items()}
    return True


def _settled(scratch: Path, name: str) -> Path:
    return scratch / f"{name}.json"


def shard_file(scratch: Path, number: int) -> Path:
    """Return where a shard's result stands."""
    return scratch / f"shard-{number:06d}.parquet"


def finish_shard(scratch: Path, number: int, table: pa.Table) -> None:
    """Keep a shard's result, whole or not at all."""
    write_table(shard_file(scratch, number), table)


def bare(part: Any) -> Any:
    """Return a component without what it has found out or loaded so far, and so with its parts."""
    if isinstance(part, Component):
        values = {one.name: bare(getattr(part, one.name)) for one in fields(part)}  # type: ignore[arg-type]
        return replace(part, **values)  # type: ignore[type-var]
    if isinstance(part, Mapping):
        return {name: bare(one) for name, one in part.items()}
    return type(part)(map(bare, part)) if isinstance(part, list | tuple) else part
