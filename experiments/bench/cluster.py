"""How much a cluster adds: scoring by `engine=ray` on simulated machines, against `engine=local` in the same run.

    python experiments/bench/cluster.py [--quick] [--json FILE]

Machines are simulated on this one: each is a Ray node of one CPU, so that more of them than there are cores gain
nothing here. Both sides score the same shards of the micro-world with its shipped student, one thread a worker, and
take turns; figures are medians over the rounds and leave out the loading, which is told beside them. Shards that wait a
quarter of a second stand for devices of the machines' own: their baseline is what so many devices can do at most. Then
shards of a megabyte that are handed back at once, more than the object store holds, show what sending costs and how
much memory it takes.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from hydra import compose, initialize_config_dir
from ray.cluster_utils import Cluster

from srecycle.compose import build, config_folder
from srecycle.config import Component, component
from srecycle.engine import Engine, Mapper
from srecycle.engine.local import LocalEngine
from srecycle.engine.ray import RayEngine
from srecycle.reflection.versions import Versions, VersionsByRow
from srecycle.stage import Work, materialize
from srecycle.store import Store
from srecycle.student.likelihoods import Likelihoods, Scoring

SHARD, MEGABYTE = 16, 2**20
WAIT, WAITED = 0.25, 20
STORE = 100 * MEGABYTE
READ = ("instruction", "input", "response", "history")
NODE = {"num_cpus": 1, "object_store_memory": STORE}


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two machines at most, fewer rows and rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    sizes, count, rounds, megabytes = ((1, 2), 96, 1, 150) if options.quick else ((1, 2, 4), 192, 3, 600)
    os.environ["PYTHONPATH"] = os.pathsep.join(str(path) for path in (config_folder().parent, Path(__file__).parent))
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        stage, rows = scored(Path(folder), count)
        shards = [rows[start : start + SHARD] for start in range(0, len(rows), SHARD)]
        for size in sizes:
            with simulated(size) as address:
                here, there, ready = [], [], []
                for _ in range(rounds):
                    here.append(seconds(LocalEngine(shard_rows=SHARD, workers=1), Scoring(stage), shards, 1)[0])
                    taken, loading = seconds(RayEngine(address=address), Scoring(stage), shards, size)
                    there.append(taken)
                    ready.append(loading)
                ratio = median(one / other for one, other in zip(here, there, strict=True))
                speed, baseline = len(rows) / median(there), len(rows) / median(here)
                figures[f"rows_per_second_{size}_nodes"] = figure(speed, "1/s", baseline, ratio)
                figures[f"rows_per_second_per_node_{size}_nodes"] = figure(speed / size, "1/s", baseline, ratio / size)
                waiting = [[b""]] * (WAITED * size)
                taken, _ = seconds(RayEngine(address=address), Echo(Device(seconds=WAIT)), waiting, size)
                one, best = len(waiting) / taken, size / WAIT
                figures[f"waiting_shards_per_second_{size}_nodes"] = figure(one, "1/s", best, one / best)
                figures[f"seconds_to_load_{size}_nodes"] = figure(median(ready), "s", 0.0, 0.0)
                if size == 2:
                    figures |= sending(address, megabytes)
    show(figures, len(rows), rounds)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def scored(folder: Path, count: int) -> tuple[Likelihoods, list[list[Mapping[str, Any]]]]:
    """Return the micro-world's scoring without what it reads, and that: the versions of so many rows."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        _, experiment = build(compose("config", [f"store={folder}", "tracker=none", f"data.count={count}"]))
    plan, store = experiment.plan(), Store(folder)
    stage = plan["likelihoods"]
    for one in stage.inputs:
        materialize(one, store)
    versions = Versions(Work(store=store, folder=folder, scratch=folder), stage.rows, stage.reflections, READ)
    return replace(stage, rows=None, reflections=()), VersionsByRow(versions)[:]


def seconds(engine: Engine, mapper: Mapper[Any, Any, Any], shards: Sequence[Any], workers: int) -> tuple[float, float]:
    """Return the seconds that shards take once all workers have loaded, and those that the loading took."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, engine.at_work(mapper, Path(scratch)) as there:
        assert there.count == workers
        while len(mapper.told) < workers:
            time.sleep(0.01)
        loaded = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(there.work, shards[:1] * workers))  # a model's first batches are slower
            warm = time.perf_counter()
            assert sum(map(len, pool.map(there.work, shards))) > 0
        return time.perf_counter() - warm, loaded - begun


@component
class Device(Component):
    """Something that takes `seconds` for a shard, whatever else the machine does."""

    seconds: float = 0.0


class Echo(Mapper[Device, bytes, list[bytes]]):
    """Hands back what it is given, after a while."""

    def load(self) -> Mapping[str, Any]:
        """Load nothing."""
        return {}

    def __call__(self, items: Sequence[bytes]) -> list[bytes]:
        """Return the items."""
        time.sleep(self.settings.seconds)
        return list(items)

    def name(self, item: bytes) -> str:
        """Items have no names."""
        return ""


def sending(address: str, megabytes: int) -> dict[str, Any]:
    """Send shards of a megabyte there and back; return the rate, the time a shard takes, and this process's growth."""
    engine = RayEngine(address=address)
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as scratch, engine.at_work(Echo(Device()), Path(scratch)) as there:

        def there_and_back(number: int) -> int:
            (item,) = there.work([number.to_bytes(2) + os.urandom(MEGABYTE - 2)])
            assert int.from_bytes(item[:2]) == number
            return int(process.memory_info().rss)

        def empty(_: int) -> int:
            return len(there.work([]))

        with ThreadPoolExecutor(there.count) as pool:
            list(pool.map(empty, range(20)))
            begun = time.perf_counter()
            list(pool.map(empty, range(200)))
            round_trip = (time.perf_counter() - begun) / 200
            list(pool.map(there_and_back, range(20)))
            before = process.memory_info().rss
            begun = time.perf_counter()
            most = max(pool.map(there_and_back, range(megabytes)))
            rate = megabytes / (time.perf_counter() - begun)
    growth, sent = (most - before) / MEGABYTE, 2 * megabytes
    return {
        "milliseconds_per_empty_shard": figure(1000 * round_trip, "ms", 0.0, 0.0),
        "megabytes_per_second_there_and_back": figure(rate, "MiB/s", 0.0, 0.0),
        "resident_memory_growth": figure(growth, "MiB", sent, growth / sent),
    }


@contextmanager
def simulated(machines: int) -> Iterator[str]:
    """Run a cluster of so many machines of one CPU; yield its address."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        for _ in range(machines - 1):
            cluster.add_node(**NODE)
        yield cluster.address
    finally:
        cluster.shutdown()


def figure(value: float, unit: str, baseline: float, ratio: float) -> dict[str, Any]:
    """Return one figure as every benchmark writes it."""
    return {"value": round(value, 3), "unit": unit, "baseline": round(baseline, 3), "ratio": round(ratio, 4)}


def show(figures: dict[str, Any], rows: int, rounds: int) -> None:
    """Print the table."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores (load {load})")
    print(f"{rows} rows of four versions in shards of {SHARD}, medians of {rounds} rounds\n")
    print(f"{'figure':40} {'value':>10} {'':6} {'baseline':>10} {'ratio':>8}")
    for name, one in figures.items():
        beside = f"{one['baseline']:10.1f} {one['ratio']:8.2f}" if one["baseline"] else ""
        print(f"{name:40} {one['value']:10.2f} {one['unit']:6} {beside}")


if __name__ == "__main__":
    main()
