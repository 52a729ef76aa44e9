"""The plan of shards stands from the start, and neither workers nor interruptions change a result."""

import json
import pickle
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from srecycle import progress
from srecycle.config import Component, component
from srecycle.engine import Mapper
from srecycle.engine.local import LocalEngine
from srecycle.engine.ray import RayEngine, room
from srecycle.errors import UserError
from srecycle.store import write_table

ITEMS = list(range(23))


def _squares(shard: Sequence[int]) -> pa.Table:
    return pa.table({"n": list(shard), "square": [n * n for n in shard]})


def _bytes(folder: Path, table: pa.Table) -> bytes:
    write_table(folder / "result.parquet", table)
    return (folder / "result.parquet").read_bytes()


def _scratch(root: Path, name: str) -> Path:
    (root / name).mkdir()
    return root / name


def _failing(at: int, seen: list[Sequence[int]] | None = None) -> Callable[[Sequence[int]], pa.Table]:
    def function(shard: Sequence[int]) -> pa.Table:
        if at in shard:
            raise RuntimeError(f"no {at}")
        if seen is not None:
            seen.append(shard)
        return _squares(shard)

    return function


def _wait_for_shards_under_way() -> None:
    """A failure doesn't wait for them."""
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(timeout=10)


def test_map_shards_returns_all_items_in_order(tmp_path: Path) -> None:
    table = LocalEngine(shard_rows=5).map_shards("t", ITEMS, _squares, tmp_path).table()
    assert table["n"].to_pylist() == ITEMS
    assert table["square"].to_pylist() == [n * n for n in ITEMS]


def test_map_shards_one_or_four_workers_give_the_same_bytes(tmp_path: Path) -> None:
    made = [
        _bytes(
            tmp_path,
            LocalEngine(shard_rows=5, workers=workers)
            .map_shards("t", ITEMS, _squares, _scratch(tmp_path, str(workers)))
            .table(),
        )
        for workers in (1, 4)
    ]
    assert made[0] == made[1]


def test_map_shards_result_does_not_tell_its_shards(tmp_path: Path) -> None:
    made = [
        LocalEngine(shard_rows=size).map_shards("t", ITEMS, _squares, _scratch(tmp_path, str(size))).table()
        for size in (5, 100)
    ]
    assert _bytes(tmp_path, made[0]) == _bytes(tmp_path, made[1])
    assert all(column.num_chunks == 1 for one in made for column in one.columns)


@pytest.mark.parametrize("workers", [1, 4])
def test_map_shards_interrupted_goes_on_with_what_is_left(tmp_path: Path, workers: int) -> None:
    scratch = _scratch(tmp_path, "scratch")
    with pytest.raises(RuntimeError, match="no 17"):
        LocalEngine(shard_rows=5, workers=workers).map_shards("t", ITEMS, _failing(17), scratch).table()
    _wait_for_shards_under_way()
    finished = {path.name for path in scratch.glob("shard-*")}
    assert {f"shard-{number:06d}.parquet" for number in range(3)} <= finished
    assert "shard-000003.parquet" not in finished
    seen: list[Sequence[int]] = []
    resumed = LocalEngine(shard_rows=5, workers=workers).map_shards("t", ITEMS, _failing(-1, seen), scratch).table()
    assert len(seen) == 5 - len(finished)
    whole = LocalEngine(shard_rows=5).map_shards("t", ITEMS, _squares, _scratch(tmp_path, "whole")).table()
    assert _bytes(tmp_path, resumed) == _bytes(tmp_path, whole)


@pytest.mark.parametrize("workers", [1, 3])
def test_map_shards_shows_the_detail_of_its_caller(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    engine = LocalEngine(shard_rows=5, workers=workers)
    engine.map_shards("likelihoods", ITEMS, _squares, tmp_path, lambda: "55 tokens/s").table()
    told = capsys.readouterr().err
    assert "likelihoods: 23/23 rows" in told and ", 55 tokens/s, about 0 s left" in told


def test_map_shards_plan_stands_when_shard_rows_changes(tmp_path: Path) -> None:
    scratch = _scratch(tmp_path, "scratch")
    with pytest.raises(RuntimeError):
        LocalEngine(shard_rows=5).map_shards("t", ITEMS, _failing(12), scratch).table()
    assert json.loads((scratch / "plan.json").read_text()) == {"items": 23, "shard_rows": 5}
    seen: list[Sequence[int]] = []
    LocalEngine(shard_rows=100).map_shards("t", ITEMS, _failing(-1, seen), scratch).table()
    assert [list(shard) for shard in seen] == [ITEMS[10:15], ITEMS[15:20], ITEMS[20:]]


def test_map_shards_workers_run_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(shard: Sequence[int]) -> pa.Table:
        together.wait()
        return _squares(shard)

    table = LocalEngine(shard_rows=1, workers=3).map_shards("t", ITEMS[:3], meet, tmp_path).table()
    assert table["n"].to_pylist() == [0, 1, 2]


def test_map_shards_failure_cancels_what_has_not_begun(tmp_path: Path) -> None:
    seen: list[Sequence[int]] = []
    gate = threading.Event()

    def function(shard: Sequence[int]) -> pa.Table:
        if shard[0] == 0:
            raise RuntimeError("first")
        gate.wait(0.2)
        seen.append(shard)
        return _squares(shard)

    with pytest.raises(RuntimeError, match="first"):
        LocalEngine(shard_rows=1, workers=2).map_shards("t", list(range(50)), function, tmp_path).table()
    assert len(seen) < 10


@component
class Toy(Component):
    """Something with a heavy part, which it makes when it is asked for it."""

    part: "Toy | None" = None

    @cached_property
    def heavy(self) -> list[int]:
        return list(range(1000))


class Drawing(Mapper[Toy, int, pa.Table]):
    """Marks its rows with what it drew when it was loaded."""

    settles: ClassVar[tuple[str, ...]] = ("drawn",)
    draws: ClassVar[list[int]] = []
    closed: ClassVar[int] = 0

    def load(self) -> Mapping[str, Any]:
        self.draws.append(len(self.draws))
        self.done = list[int]()
        return {"drawn": self.draws[-1]}

    def adopt(self) -> None:
        self.drawn = self.settled["drawn"]

    def __call__(self, items: Sequence[int]) -> pa.Table:
        self.done += items
        if -1 in items:
            raise RuntimeError("a bad item")
        return pa.table({"n": list(items), "drawn": [self.drawn] * len(items)})

    def name(self, item: int) -> str:
        return str(item)

    def counts(self) -> dict[str, Any]:
        return {"items": len(self.done)}

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture(autouse=True)
def _nothing_drawn() -> None:
    Drawing.draws.clear()
    Drawing.closed = 0


@pytest.mark.parametrize("workers", [1, 4])
def test_mapper_is_loaded_once_for_all_workers_and_closed(tmp_path: Path, workers: int) -> None:
    mapper = Drawing(Toy())
    assert not mapper.told and not mapper.seconds
    table = LocalEngine(shard_rows=5, workers=workers).map_shards("t", ITEMS, mapper, tmp_path).table()
    assert table["n"].to_pylist() == ITEMS
    assert (len(Drawing.draws), Drawing.closed, mapper.told) == (1, 1, [{"items": len(ITEMS)}])
    assert mapper.seconds > 0


def test_mapper_resumed_works_by_what_was_settled_before(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="a bad item"):
        LocalEngine(shard_rows=5).map_shards("t", [*ITEMS[:12], -1], Drawing(Toy()), tmp_path).table()
    assert Drawing.closed == 1
    table = LocalEngine(shard_rows=5).map_shards("t", ITEMS[:13], Drawing(Toy()), tmp_path).table()
    assert table["drawn"].to_pylist() == [0] * 13 and Drawing.draws == [0, 1]


def test_mapper_with_nothing_left_to_do_is_not_loaded_and_knows_what_was_settled(tmp_path: Path) -> None:
    made = [LocalEngine(shard_rows=5).map_shards("t", ITEMS, Drawing(Toy()), tmp_path).table()]
    mapper = Drawing(Toy())
    made.append(LocalEngine(shard_rows=5).map_shards("t", ITEMS, mapper, tmp_path).table())
    assert made[0].equals(made[1]) and Drawing.draws == [0]
    assert mapper.settled == {"drawn": 0} and not mapper.told


def test_mapper_is_sent_without_what_its_settings_hold_in_memory() -> None:
    mapper = Drawing(Toy(part=Toy()))
    bare = len(pickle.dumps(mapper))
    assert mapper.settings.heavy and mapper.settings.part is not None and mapper.settings.part.heavy
    assert len(pickle.dumps(mapper)) == bare
    sent = pickle.loads(pickle.dumps(mapper)).settings  # noqa: S301 - what Ray does
    assert sent == mapper.settings and "heavy" not in vars(sent)


def test_ray_engine_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'srecycle\[ray\]'"):
        RayEngine().check()


@pytest.mark.parametrize("gpus", [1.5, -1.0])
def test_ray_engine_refuses_gpus_that_nobody_can_share(gpus: float) -> None:
    with pytest.raises(ValueError, match="gpus_per_worker"):
        RayEngine(gpus_per_worker=gpus)
    assert RayEngine(gpus_per_worker=0.5).gpus_per_worker == 0.5


@pytest.mark.parametrize(
    ("node", "cpus", "gpus", "workers"),
    [
        ({"CPU": 16.0, "GPU": 4.0}, 1, 1, 4),
        ({"CPU": 16.0, "GPU": 4.0}, 8, 1, 2),
        ({"CPU": 16.0, "GPU": 1.0}, 1, 0.5, 2),
        ({"CPU": 16.0, "GPU": 4.0}, 1, 8, 0),
        ({"CPU": 3.0}, 1, 0, 3),
        ({"CPU": 3.0}, 1, 1, 0),
        ({}, 1, 0, 0),
    ],
)
def test_ray_room_is_what_a_machine_has_of_both(node: dict[str, float], cpus: float, gpus: float, workers: int) -> None:
    assert room(node, cpus, gpus) == workers
