"""Workers on a simulated cluster of two machines: the same results as here, whatever dies, and nothing left behind."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from srecycle.config import Component, component, runtime
from srecycle.engine import Mapper
from srecycle.engine.base import shard_file
from srecycle.engine.local import LocalEngine
from srecycle.engine.ray import RayEngine
from srecycle.errors import UserError
from srecycle.progress import say
from tests.conftest import ROOT

ray = pytest.importorskip("ray", reason="engine=ray is an extra: pip install 'srecycle[ray]'")
pytestmark = pytest.mark.slow

ITEMS = list(range(23))
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@component
class Toy(Component):
    """Squares numbers. A worker ends once at `dies`, each time at `deadly`, and raises at `wrong`."""

    power: int = 2
    content: Path
    folder: Path = runtime()
    seconds: float = runtime(0.0)
    dies: int = runtime(-1)
    deadly: int = runtime(-1)
    wrong: int = runtime(-1)

    def resolved(self) -> Mapping[str, Any]:
        """The content counts, not where it is."""
        return {"content": self.content.read_text() if self.content.exists() else "nothing"}


class Powers(Mapper[Toy, int, pa.Table]):
    """Leaves a line in a file for each shard that it begins."""

    settles = ("drawn",)

    def load(self) -> Mapping[str, Any]:
        say("  a warning from the model")
        self._items = 0
        return {"drawn": time.time_ns()}

    def adopt(self) -> None:
        self._drawn = self.settled["drawn"]

    def __call__(self, items: Sequence[int]) -> pa.Table:
        toy = self.settings
        with (toy.folder / "begun").open("a") as stream:
            stream.write(f"{items[0]} {os.getpid()}\n")
        time.sleep(toy.seconds)
        if toy.deadly in items or (toy.dies in items and not (toy.folder / "died").exists()):
            (toy.folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if toy.wrong in items:
            raise UserError(f"{toy.wrong} is wrong")
        self._items += len(items)
        drawn = [self._drawn] * len(items)
        return pa.table({"n": list(items), "power": [n**toy.power for n in items], "drawn": drawn})

    def name(self, item: int) -> str:
        return f"row-{item}"

    def counts(self) -> dict[str, Any]:
        return {"items": self._items}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(Path(__file__).parent)]))
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        made.add_node(**NODE)
        yield made
        made.shutdown()


Map = Callable[..., pa.Table]


@pytest.fixture
def mapped(cluster: Any, tmp_path: Path) -> Map:
    """Return a function that maps the items on the cluster; settings of the engine and of the toy are its arguments."""

    def map_(mapper: Powers, **settings: Any) -> pa.Table:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        engine = RayEngine(**{"address": cluster.address, "shard_rows": 5, "cpus_per_worker": 1} | settings)
        return engine.map_shards("t", ITEMS, mapper, scratch).table()

    return map_


@pytest.fixture
def powers(tmp_path: Path) -> Callable[..., Powers]:
    (tmp_path / "content").write_text("weights")

    def made(**fields: Any) -> Powers:
        return Powers(Toy(folder=tmp_path, content=tmp_path / "content", **fields))

    return made


def _begun(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "begun").read_text().splitlines()]


def _is_whole(table: pa.Table) -> bool:
    settled = len(set(table["drawn"].to_pylist())) == 1
    return settled and table["n"].to_pylist() == ITEMS and table["power"].to_pylist() == [n * n for n in ITEMS]


def test_ray_maps_on_all_machines_what_one_machine_maps(
    mapped: Map, powers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mapper = powers(seconds=0.2)
    table = mapped(mapper)
    (tmp_path / "here").mkdir()
    here = LocalEngine(shard_rows=5).map_shards("t", ITEMS, powers(), tmp_path / "here").table()
    assert table.drop_columns("drawn").equals(here.drop_columns("drawn")) and _is_whole(table)
    processes = {process for _, process in _begun(tmp_path)} - {str(os.getpid())}
    assert len(processes) == len(mapper.told) == 2
    assert sum(one["items"] for one in mapper.told) == len(ITEMS)
    assert capsys.readouterr().err.count("a warning from the model") == 2, "once for all workers, once here"
    assert not ray.is_initialized()


def test_ray_worker_that_dies_is_replaced_and_its_shard_is_done_again(
    mapped: Map, powers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _is_whole(mapped(powers(dies=12), workers=1))
    begun = _begun(tmp_path)
    assert [first for first, _ in begun].count("10") == 2 and len({process for _, process in begun}) == 2
    assert "a worker died" in capsys.readouterr().err


def test_ray_machine_that_is_lost_takes_no_row_with_it(
    mapped: Map, cluster: Any, powers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = next(node for node in cluster.list_all_nodes() if not node.head)

    def lose() -> None:
        while len({process for _, process in _begun(tmp_path)} if (tmp_path / "begun").exists() else ()) < 2:
            time.sleep(0.05)
        cluster.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        assert _is_whole(mapped(powers(seconds=2.0)))
    finally:
        thread.join()
        cluster.add_node(**NODE)
    assert "a worker died" in capsys.readouterr().err


def test_ray_shard_that_ends_every_worker_is_named_and_the_rest_is_kept(
    mapped: Map, powers: Any, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"2 workers died of one shard .*rows row-10, row-11, row-12, row-13, row-14:"):
        mapped(powers(deadly=12), attempts=2, workers=1)
    kept = {number for number in range(5) if shard_file(tmp_path / "scratch", number).exists()}
    assert kept == {0, 1}
    assert _is_whole(mapped(powers()))
    again = [int(first) // 5 for first, _ in _begun(tmp_path)]
    assert all(again.count(number) == 1 for number in kept), "finished shards were done again"


def test_ray_error_of_a_worker_is_raised_here(mapped: Map, powers: Any) -> None:
    with pytest.raises(UserError, match=r"^12 is wrong$"):
        mapped(powers(wrong=12))


def test_ray_worker_with_other_content_is_refused(mapped: Map, powers: Any, tmp_path: Path) -> None:
    """A worker reads what stands behind a path where it is; only what was planned here may stand there."""
    mapper = powers()

    class Moved(Powers):
        def __getstate__(self) -> dict[str, Any]:
            (tmp_path / "content").write_text("other weights")
            return super().__getstate__()

    moved = Moved(mapper.settings)
    with pytest.raises(UserError, match=r"something else than this process \(content: weights -> other weights\)"):
        mapped(moved)


def test_ray_worker_without_our_code_is_told_of(mapped: Map, powers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Powers, "__module__", "only_here")
    monkeypatch.setitem(sys.modules, "only_here", sys.modules[__name__])
    with pytest.raises(UserError, match="a worker has no module only_here: install"):
        mapped(powers())


def test_ray_plan_of_before_stands(mapped: Map, powers: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        mapped(powers(wrong=22))
    drawn = (tmp_path / "scratch/drawn.json").read_text()
    assert _is_whole(mapped(powers(), shard_rows=2))
    assert (tmp_path / "scratch/drawn.json").read_text() == drawn


def test_ray_functions_stay_in_this_process(cluster: Any, tmp_path: Path) -> None:
    lock = threading.Lock()

    def square(items: Sequence[int]) -> pa.Table:
        with lock:
            return pa.table({"n": [n * n for n in items], "process": [os.getpid()] * len(items)})

    table = RayEngine(address=cluster.address, shard_rows=5).map_shards("t", ITEMS, square, tmp_path).table()
    assert table["n"].to_pylist() == [n * n for n in ITEMS]
    assert set(table["process"].to_pylist()) == {os.getpid()}


def test_ray_without_a_cluster_says_how_to_start_one(powers: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"engine.address=127.0.0.1:1: .*ray start --head"):
        RayEngine(address="127.0.0.1:1").map_shards("t", ITEMS, powers(), tmp_path).table()
