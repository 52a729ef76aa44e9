"""The engine of many machines: mappers are loaded by workers on a Ray cluster, and shards go to whichever is free.

Shards are sent as they are asked for, and come back to this process, which alone touches the store: the cluster needs
no common folder but for models that are named by a path, and the ledger's SQLite file has one writer, as it must where
it lies on a file system of several machines. Plain functions (requests to a teacher's server: its budget and its rate
limits are counted in one process) stay in this process.

Actors instead of Ray Data, since a shard, and not a block of Ray's choosing, is what is batched, kept and resumed: Ray
Data takes all of its input into the object store before it begins, and ends a whole pipeline where a worker dies too
often, without saying on which rows.
"""

import importlib.util
import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from srecycle.config import component, runtime
from srecycle.engine.base import Engine, Item, Made, Mapper, Work, Workers
from srecycle.errors import UserError
from srecycle.progress import say

_PATIENCE = 10.0
"""Seconds to wait for an answer at a cluster's address."""


def _shareable(gpus: float) -> float:
    """Refuse one and a half."""
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("a share of one GPU (0.5) or whole GPUs (2)")
    return gpus


Gpus = Annotated[float, Field(ge=0), AfterValidator(_shareable)]


@component
class RayEngine(Engine):
    """Maps shards by workers on a Ray cluster, each with `cpus_per_worker` and `gpus_per_worker`.

    `address` is the cluster's: "auto" for the one that runs on this machine, "ray://HOST:10001" for one that this
    machine is not part of, "HOST:6379", or null to start one here for the time of each stage. `workers` is how many
    there are at most (default: as many as the cluster has room for); they begin as they find room. A worker without
    `gpus_per_worker` has one GPU where the cluster has any. A shard whose worker died goes to others, `attempts` times
    in all. `shards_here` is how many shards at a time are under way of what this process does itself.
    """

    elsewhere: ClassVar[bool] = True

    address: Annotated[str, Field(min_length=1)] | None = runtime("auto")
    workers: Annotated[int, Field(ge=1)] | None = runtime(None)
    cpus_per_worker: Annotated[float, Field(gt=0)] = runtime(1.0)
    gpus_per_worker: Gpus | None = runtime(None)
    attempts: Annotated[int, Field(ge=1)] = runtime(3)
    shards_here: Annotated[int, Field(ge=1)] = runtime(2)

    def check(self) -> None:
        """Raise UserError where Ray isn't installed."""
        if importlib.util.find_spec("ray") is None:
            raise UserError("engine=ray needs Ray, which isn't installed: pip install 'srecycle[ray]'")

    @contextmanager
    def at_work(self, work: Work[Item, Made], scratch: Path) -> Iterator[Workers[Item, Made]]:
        """Have workers on the cluster load a mapper; call a function here."""
        if not isinstance(work, Mapper):
            yield Workers(work=work, count=self.shards_here)
            return
        from srecycle.engine.pool import Pool

        with connected(self.address) as nodes:
            gpus = self.gpus_per_worker
            if gpus is None:
                gpus = 1.0 if any(node.get("GPU") for node in nodes) else 0.0
            fitting = sum(room(node, self.cpus_per_worker, gpus) for node in nodes)
            wanted = f"{self.cpus_per_worker:g} CPUs and {gpus:g} GPUs"
            if not fitting and self.address is None:
                raise UserError(
                    f"engine=ray wants {wanted} for a worker, and this machine has fewer: lower "
                    "engine.cpus_per_worker or engine.gpus_per_worker, or set engine.address to a cluster's"
                )
            if not fitting:
                say(f"  no node of the cluster has the {wanted} of a worker: waiting for one")
            resources = {"num_cpus": self.cpus_per_worker, "num_gpus": gpus}
            pool = Pool(work, scratch, self.workers or max(fitting, 1), resources, self.attempts)
            try:
                yield Workers(work=pool, count=pool.size)
            finally:
                pool.close()


def room(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Return how many workers a node of these resources has room for."""
    by_cpus = int(node.get("CPU", 0) // cpus)
    return min(by_cpus, int(node.get("GPU", 0) / gpus)) if gpus else by_cpus


@contextmanager
def connected(address: str | None) -> Iterator[list[dict[str, float]]]:
    """Connect to a cluster, or start one on this machine; yield the resources of its nodes.

    A connection that is there already (a notebook's) is used, and stays. Raises UserError where there is no cluster.
    """
    import ray

    begun = not ray.is_initialized()
    if begun:
        _connect(address)
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if begun:
            ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise OSError where nobody answers at an address: Ray itself tries for many minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS")
    if found := re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address or ""):
        socket.create_connection((found[1], int(found[2])), timeout=_PATIENCE).close()


def _connect(address: str | None) -> None:
    import ray

    mine: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _reach(address)
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **mine)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(
            f"engine.address={address or 'null'}: {' '.join(str(error).split())[:300]}; start a cluster "
            "(`ray start --head`, and `ray start --address=HEAD:6379` on the other machines), or set "
            "engine.address=null for one on this machine alone"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray puts its own in place, with another exit code
