"""Workers on a Ray cluster that map shards: each is an actor, which loads the mapper once and takes a shard at a time.

A worker that dies (its process, or its machine) is replaced, and its shard goes to another. A shard that was the end of
several workers is the user's to look at: its rows are named, and what other shards gave is kept. Before a worker works,
it makes sure that the mapper's settings mean the same where it is as where they were planned: the same content behind
a model's path, the same revisions of our code.
"""

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic

from srecycle.config import Canonical, field_diff, identity
from srecycle.engine.base import Item, Made, Mapper, settle
from srecycle.errors import UserError
from srecycle.progress import console, say

if TYPE_CHECKING:
    from ray.exceptions import RayError, RayTaskError

_PATIENCE = 30.0
"""Seconds without a free worker after which it is said that more are waited for."""

_TO_END = 10.0
"""Seconds within which threads notice that their worker was ended."""

_NAMED = 8
_STOPPED = "the workers were stopped with the run; the same command goes on where it stopped"


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What a worker sends back: what it found or made, its name, what it counted, and the lines that it had to say."""

    made: Any
    worker: str
    counts: dict[str, Any]
    said: list[str]


class _Worker:
    """The actor."""

    def load(self, mapper: Mapper[Any, Any, Any], planned: Canonical) -> _Told:
        """Load the mapper. Raises UserError where it is not here what it is where it was planned."""
        self._mapper, self._adopted = mapper, False
        host = socket.gethostname()

        def load() -> Mapping[str, Any]:
            try:
                differences = field_diff(planned, identity(mapper.settings))
                if not differences:
                    return mapper.load()
            except UserError as error:
                raise UserError(f"a worker on {host}: {error}") from error
            raise UserError(
                f"a worker on {host} has something else than this process ({'; '.join(differences)}): install the same "
                "srecycle there, and give it the same files"
            )

        return self._told(load)

    def work(self, items: Sequence[Any], settled: dict[str, Any]) -> _Told:
        """Map a shard."""
        if not self._adopted:
            self._mapper.settled, self._adopted = settled, True
            self._mapper.adopt()
        return self._told(lambda: self._mapper(items))

    def _told(self, make: Callable[[], Any]) -> _Told:
        with console.capture() as captured:
            made = make()
        name = f"{socket.gethostname()} {os.getpid()}"
        return _Told(made=made, worker=name, counts=self._mapper.counts(), said=captured.get().splitlines())


class Pool(Generic[Item, Made]):
    """So many workers for one mapper. A call has a free one map a shard; threads make several at the same time."""

    def __init__(
        self, mapper: Mapper[Any, Item, Made], scratch: Path, size: int, resources: Mapping[str, float], attempts: int
    ) -> None:
        """Ask the cluster for workers: they are there when it has found room for them, and they have loaded."""
        import ray

        self.size = size
        self._mapper, self._scratch, self._resources, self._attempts = mapper, scratch, dict(resources), attempts
        self._planned = identity(mapper.settings)
        self._sent = ray.put(mapper)
        self._free: SimpleQueue[Any] = SimpleQueue()  # workers, and the error that ends all calls
        self._state = threading.Condition()
        self._actors: list[Any] = []
        self._said: set[str] = set()
        self._busy = 0
        self._stopped = False
        for _ in range(size):
            self._hire()

    def __call__(self, items: Sequence[Item]) -> Made:
        """Map a shard. Raises UserError where a worker raises one, or where it is the end of all that try it."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        with self._under_way():
            why = ""
            for _ in range(self._attempts):
                actor = self._next()
                try:
                    told: _Told = ray.get(actor.work.remote(items, self._mapper.settled))
                except RayTaskError as error:
                    self._free.put(actor)
                    raise _cause(error) from error
                except RayError as error:
                    why = self._lost(actor, error)
                    self._tell(f"  a worker died ({why}): its shard goes to another")
                    self._hire()
                else:
                    self._hear(told)
                    self._free.put(actor)
                    made: Made = told.made
                    return made
            raise UserError(self._deadly([self._mapper.name(item) for item in items], why))

    def close(self) -> None:
        """End the workers, whatever they are at, and have those that wait for them end too."""
        import ray

        with self._state:
            self._stopped = True
            actors = list(self._actors)
        for actor in actors:
            ray.kill(actor)
        self._free.put(UserError(_STOPPED))
        with self._state:
            self._state.wait_for(lambda: not self._busy, timeout=_TO_END)

    def _next(self) -> Any:
        """Wait for a free worker."""
        while True:
            try:
                one = self._free.get(timeout=_PATIENCE)
            except Empty:
                self._tell("  waiting for workers: the cluster has no room for all of them yet, or they still load")
                continue
            if isinstance(one, Exception):
                self._free.put(one)
                raise one
            return one

    def _hire(self) -> None:
        """Get one more worker, in time."""

        def hire() -> None:
            with self._under_way():
                try:
                    self._free.put(self._hired())
                except Exception as error:  # noqa: BLE001 - whatever it is, those who wait for workers raise it
                    self._free.put(error)

        threading.Thread(target=hire, daemon=True).start()

    def _hired(self) -> Any:
        import ray
        from ray.exceptions import RayError, RayTaskError

        why = ""
        for _ in range(self._attempts):
            actor = ray.remote(_Worker).options(max_restarts=0, **self._resources).remote()
            with self._state:
                self._actors.append(actor)
            try:
                if self._stopped:
                    ray.kill(actor)
                told: _Told = ray.get(actor.load.remote(self._sent, self._planned))
            except RayTaskError as error:
                raise _cause(error) from error
            except RayError as error:
                why = self._lost(actor, error)
                self._tell(f"  a worker died as it loaded ({why}): trying another")
            else:
                with self._state:
                    if not self._mapper.heard:
                        settle(self._mapper, self._scratch, told.made)
                    self._hear(told)
                return actor
        raise UserError(
            f"{self._attempts} workers in a row died as they loaded (the last: {why}): see whether the model fits into "
            "the machine's memory, and what Ray's logs there say (engine.cpus_per_worker and engine.gpus_per_worker: "
            "what each worker has to itself)"
        )

    def _lost(self, actor: Any, error: "RayError") -> str:
        """Take a worker off the list, and return why in a few words. Raises UserError where it was we who ended it."""
        import ray

        if self._stopped:
            raise UserError(_STOPPED) from error
        if lacking := _lacking(error):
            raise lacking from error
        with self._state:
            self._actors.remove(actor)
        ray.kill(actor)  # it may only be out of reach
        return _reason(error)

    def _hear(self, told: _Told) -> None:
        self._mapper.heard[told.worker] = told.counts
        for line in told.said:
            self._tell(line)

    def _tell(self, line: str) -> None:
        """Say what one worker has to say, and not what all of them have."""
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _deadly(self, names: Sequence[str], why: str) -> str:
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"{self._attempts} workers died of one shard (the last: {why}), rows {', '.join(names[:_NAMED])}{more}: "
            "look at these, and at the workers' memory; what other shards gave is kept, and the same command goes on "
            "(engine.attempts is how often a shard is tried)"
        )

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """Let `close` know of what still asks for results: the connection must outlast it."""
        with self._state:
            self._busy += 1
        try:
            yield
        finally:
            with self._state:
                self._busy -= 1
                self._state.notify_all()


def _cause(error: "RayTaskError") -> Exception:
    """Return what a worker raised."""
    cause: Exception = error.cause
    return cause if isinstance(cause, UserError) else _lacking(error) or cause


def _lacking(error: "RayError") -> UserError | None:
    """Return what to say where a worker lacks our code, or a plugin's."""
    found = re.search(r"No module named '([\w.]+)'", str(error))
    return found and UserError(
        f"a worker has no module {found[1]}: install what is installed here, srecycle and its plugins, on all machines "
        "of the cluster"
    )


def _reason(error: "RayError") -> str:
    """Put a worker's end, which Ray tells in a page, into a line."""
    told = " ".join(str(error).split())
    for pattern in (r"Worker exit detail: (.+?)(?: Some common causes|$)", r"The actor is dead because (.+)", "(.+)"):
        if found := re.search(pattern, told):
            return found[1][:200].rstrip(".")
    return type(error).__name__
