"""Reflecting with workers elsewhere: who asks a teacher where, and nothing that was generated is lost or done twice."""

import json
import pickle
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from srecycle.config import component
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine import Mapper
from srecycle.engine.base import Workers
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection
from srecycle.reflection.generating import Generated, in_memory
from srecycle.stage import materialize
from srecycle.store import Artifact, Store
from srecycle.student import Student
from srecycle.teacher import Request, Teacher
from srecycle.teacher.several import SeveralTeachers
from srecycle.teacher.transformers import TransformersTeacher
from tests.unit.reflection.conftest import ChatServer

SENT: list[list[Request]] = []
"""What workers were given, shard by shard."""


@component
class Elsewhere(LocalEngine):
    """Sends mappers away, as bytes, to workers that share nothing with this process."""

    elsewhere: ClassVar[bool] = True

    @contextmanager
    def at_work(self, work: Any, scratch: Path) -> Iterator[Workers[Any, Any]]:
        if not isinstance(work, Mapper):
            yield Workers(work=work, count=self.workers)
            return
        there = pickle.loads(pickle.dumps(work))  # noqa: S301 - what Ray does
        there.load()

        def sent(items: Sequence[Request]) -> Generated:
            SENT.append(list(items))
            made: Generated = pickle.loads(pickle.dumps(there(items)))  # noqa: S301 - what Ray does
            return made

        yield Workers(work=sent, count=self.workers)


@pytest.fixture(autouse=True)
def _nothing_sent() -> None:
    SENT.clear()


Stages = Callable[..., tuple[Source, Reflect]]


@pytest.fixture
def stages(tmp_path: Path, wording: Reflection) -> Stages:
    """Return a function that makes the stages; one row is too long for a tiny model, and stands there twice."""
    texts = [f"name the capital {number}" for number in range(6)] + ["staying healthy " * 300] * 2
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": text, "output": "r"} for text in texts]))
    source = Source(data=Alpaca(path=tmp_path / "rows.json"))
    asking = replace(wording, reask_requests={"unparsed": "mend {form}", "truncated": "shorter {form}"})

    def made(teacher: Teacher, engine: type[LocalEngine] = Elsewhere, workers: int = 2) -> tuple[Source, Reflect]:
        engine_ = engine(shard_rows=3, workers=workers)
        return source, Reflect(phase="response", rows=source, teacher=teacher, reflection=asking, engine=engine_)

    return made


def _teacher(model: Path, **fields: Any) -> TransformersTeacher:
    student = Student(path=str(model), device="cpu", threads=1, max_length=256)
    return TransformersTeacher(**{"model": student, "max_tokens": 8, "temperature": 1.0} | fields)


def _made(store: Store, stages: Sequence[Any]) -> Artifact:
    return [materialize(stage, store).artifact for stage in stages][-1]


def _replies(store: Store) -> list[tuple[Any, ...]]:
    with sqlite3.connect(store.root / "ledger.sqlite") as ledger:
        return sorted(ledger.execute("SELECT key, request, reply, output_tokens, imported FROM replies"))


def test_generating_elsewhere_gives_what_generating_here_gives(
    tmp_path: Path, stages: Stages, tiny_models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    one = _made(here, stages(_teacher(tiny_models["llama"]), LocalEngine))
    teacher, loaded, load = _teacher(tiny_models["llama"]), list[Student](), Student.load
    monkeypatch.setattr(Student, "load", lambda student: loaded.append(student) or load(student))
    other = _made(there, stages(teacher))
    for name in ("candidates.parquet", "record.json"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert _replies(here) == _replies(there) and len(_replies(here)) == 12, "six replies, each asked for once more"
    statuses = one.table("candidates")["status"].to_pylist()
    assert statuses[6:] == ["too_long"] * 2 and "too_long" not in statuses[:6]
    calls = [dict(made.provenance["notes"]["calls"]) for made in (one, other)]
    assert calls[0] == calls[1] and calls[0]["paid"] == 12
    assert sum(map(len, SENT)) == 6 + 6 + 2
    assert len(loaded) == 1 and loaded[0] is not teacher.model, "the stage's own process needs no model"


def test_generating_elsewhere_asks_for_nothing_that_the_ledger_has(
    store: Store, stages: Stages, tiny_models: Mapping[str, Path]
) -> None:
    first = _made(store, stages(_teacher(tiny_models["llama"]), LocalEngine))
    before = (first.folder / "candidates.parquet").read_bytes()
    for file in first.folder.iterdir():
        file.unlink()
    again = _made(store, stages(_teacher(tiny_models["llama"])))
    assert (again.folder / "candidates.parquet").read_bytes() == before
    assert {request.instruction[:7] for shard in SENT for request in shard} == {"staying"}, "only what has no reply"


def test_generating_elsewhere_keeps_each_workers_replies_before_the_next(
    store: Store, stages: Stages, tiny_models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = _teacher(tiny_models["llama"])
    source, reflect = stages(teacher, workers=1)

    def broken(*_: Any) -> None:
        raise RuntimeError("the process ended")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(Reflect, "answered", broken)
        _made(store, (source, reflect))
    assert len(_replies(store)) == len(SENT[0]) == 3
    _made(store, (source, reflect))
    asked = [(request.row_id, len(request.messages)) for shard in SENT for request in shard]
    assert len(set(asked)) == len(asked) == 6 + 6 + 2


def test_generating_several_models_goes_elsewhere_and_names_who_wrote(
    tmp_path: Path, stages: Stages, tiny_models: Mapping[str, Path]
) -> None:
    def teacher() -> SeveralTeachers:
        return SeveralTeachers(teachers={name: _teacher(tiny_models[name]) for name in ("llama", "gpt2")})

    made = [
        _made(Store(tmp_path / engine.__name__), stages(teacher(), engine)).table("candidates")
        for engine in (LocalEngine, Elsewhere)
    ]
    assert made[0].equals(made[1]) and set(made[0]["teacher"].to_pylist()) == {"llama", "gpt2"} and SENT


def test_server_is_asked_from_this_process(store: Store, stages: Stages, server: ChatServer) -> None:
    made = _made(store, stages(server.teacher()))
    assert made.table("candidates")["status"].to_pylist() == ["ok"] * 8
    assert len(server.sent) == 7 and not SENT


def test_in_memory_is_no_teacher_that_asks_a_server_for_some_of_its_rows(
    server: ChatServer, tiny_models: Mapping[str, Path]
) -> None:
    local = _teacher(tiny_models["llama"])
    assert in_memory(local) and in_memory(SeveralTeachers(teachers={"a": local, "b": local}))
    assert not in_memory(server.teacher()) and not in_memory(
        SeveralTeachers(teachers={"a": local, "b": server.teacher()})
    )
