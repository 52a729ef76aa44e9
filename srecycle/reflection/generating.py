"""How a teacher is asked by an engine whose workers are elsewhere.

A teacher behind a server is asked from this process: its budget, its rate limits and its claims in the ledger are
counted in one place, and one asynchronous client keeps a server busy. A teacher that is a model in memory generates in
the engine's workers, which never see the store's ledger: they send back what they generated, this process commits it,
and only then is it used. What a worker was generating when it died is generated again, to the same text.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from srecycle.engine import Engine, Mapper
from srecycle.engine.local import LocalEngine
from srecycle.rows import OK
from srecycle.teacher import Ledger, Reply, Request, Teacher
from srecycle.teacher.several import SeveralTeachers
from srecycle.teacher.transformers import TransformersTeacher

Asking = Callable[[Sequence[Request], Ledger], list[Reply]]


@dataclass(frozen=True, kw_only=True)
class Generated:
    """Replies to requests, and the lines of a ledger that hold those that are replies indeed."""

    replies: list[Reply]
    lines: list[dict[str, Any]]


_NOTHING = Generated(replies=[], lines=[])


class Generating(Mapper[Teacher, Request, Generated]):
    """What a worker does: it generates replies into a ledger of its own, and hands that over."""

    def load(self) -> Mapping[str, Any]:
        """Raise UserError where the teacher's device isn't there. The first request loads its model."""
        self.settings.check()
        return {}

    def __call__(self, items: Sequence[Request]) -> Generated:
        """Return the replies to requests."""
        with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            replies = self.settings.replies(items, ledger)
            return Generated(replies=replies, lines=list(ledger.rows("SELECT * FROM replies")))

    def name(self, item: Request) -> str:
        """Return the row's id."""
        return item.row_id

    def close(self) -> None:
        """End after the batch that is being generated, and let go of the model."""
        self.settings.interrupt()
        self.settings.close()


def in_memory(teacher: Teacher) -> bool:
    """Say whether a teacher's replies come from a model in memory alone."""
    if isinstance(teacher, SeveralTeachers):
        return all(map(in_memory, teacher.teachers.values()))
    return isinstance(teacher, TransformersTeacher)


@contextmanager
def asked_by(engine: Engine, teacher: Teacher, scratch: Path) -> Iterator[tuple[Asking, Engine]]:
    """Yield how to ask a teacher, and the engine to do so with, whose work doesn't leave this process."""
    if not (engine.elsewhere and in_memory(teacher)):
        yield teacher.replies, engine
        return
    with engine.at_work(Generating(teacher), scratch) as workers:

        def ask(requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
            new = [bool(teacher.outstanding([request], ledger)) for request in requests]
            generated = workers.work(list(compress(requests, new))) if any(new) else _NOTHING
            ledger.add([line | {"time": time.time()} for line in generated.lines])
            theirs = iter(generated.replies)
            refused = [reply if one and (reply := next(theirs)).status != OK else None for one in new]
            # What was generated is read from the ledger too: where another process was faster, its reply stands.
            known = [request for request, reply in zip(requests, refused, strict=True) if reply is None]
            kept = iter(teacher.replies(known, ledger))
            return [reply or next(kept) for reply in refused]

        yield ask, LocalEngine(shard_rows=engine.shard_rows, workers=workers.count)
