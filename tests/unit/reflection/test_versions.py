"""Versions and bases that are read so many rows at a time, against joins in plain Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from srecycle.data import Source
from srecycle.data.testbed import Testbed as World
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection, versions
from srecycle.reflection.bases import Base, Bases, bases
from srecycle.reflection.versions import Versions, VersionsByRow
from srecycle.rows import kind_of, to_rows, version_order
from srecycle.selector.random import Random
from srecycle.selector.select import Select
from srecycle.stage import Stage, Work, materialize
from srecycle.store import Store, files
from srecycle.teacher.scripted import ScriptedTeacher

COUNT = 60
TEXTS = ("instruction", "input", "response")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "GROUP_LINES", 11)
    monkeypatch.setattr(versions, "ROWS_AT_ONCE", 7)


@pytest.fixture
def work(store: Store, tmp_path: Path) -> Work:
    return Work(store=store, folder=tmp_path, scratch=tmp_path)


def _stages(wording: Reflection) -> tuple[Source, Reflect, Reflect]:
    source = Source(data=World(count=COUNT, mix={"ok": 0.6, "ambiguous": 0.4}))
    first = Reflect(
        phase="instruction",
        rows=source,
        teacher=ScriptedTeacher(unparsable=0.3),
        reflection=wording,
        engine=LocalEngine(shard_rows=9),
    )
    return (
        source,
        first,
        Reflect(
            phase="response",
            rows=source,
            instructions=first,
            teacher=first.teacher,
            reflection=wording,
            engine=first.engine,
        ),
    )


def _joined(work: Work, source: Source, reflections: Sequence[Reflect]) -> list[dict[str, Any]]:
    """Return all versions, found row by row."""
    written = [line for one in reflections for line in work.read(one).table("candidates").to_pylist()]
    joined = []
    for row in work.read(source).table("rows").to_pylist():
        joined.append({**row, "version": "original", "status": "ok", "critique": "", "criteria": []})
        rewritten = [line for line in written if line["id"] == row["id"]]
        for line in sorted(rewritten, key=lambda one: version_order(one["version"])):
            same = kind_of(line["version"]) == "response"
            known = {name: row[name] if same else empty for name, empty in (("history", []), ("reference", ""))}
            texts = {name: line[name] for name in ("version", "status", "critique", "criteria", *TEXTS)}
            joined.append({**row, **known, "label": "", **texts})
    return joined


def _made(store: Store, *stages: Stage) -> None:
    for stage in stages:
        materialize(stage, store)


def test_versions_read_in_parts_are_those_of_a_plain_join(store: Store, work: Work, wording: Reflection) -> None:
    source, *reflections = stages = _stages(wording)
    _made(store, *stages)
    joined = _joined(work, source, reflections)
    assert len(joined) == 4 * COUNT and {line["status"] for line in joined} > {"ok"}
    found = Versions(work, source, reflections)
    assert found.table().to_pylist() == joined
    parts = list(found.parts())
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(at, min(at + 7, COUNT)) for at in range(0, COUNT, 7)]
    assert [line for _, table in parts for line in table.to_pylist()] == joined


def test_versions_by_row_are_sliced_as_a_list_of_rows_would_be(store: Store, work: Work, wording: Reflection) -> None:
    source, *reflections = stages = _stages(wording)
    _made(store, *stages)
    joined = [{name: line[name] for name in ("id", "version")} for line in _joined(work, source, reflections)]
    rows = [joined[at : at + 4] for at in range(0, len(joined), 4)]
    found = VersionsByRow(Versions(work, source, reflections, ()))
    assert len(found) == COUNT
    for places in (slice(0, 9), slice(9, 18), slice(54, 60), slice(59, 80), slice(20, 20)):
        got = [[{name: line[name] for name in ("id", "version")} for line in lines] for lines in found[places]]
        assert got == rows[places]
    without = VersionsByRow(Versions(work, None, reflections, ()))
    assert [len(lines) for lines in without[:]] == [3] * COUNT


@pytest.mark.parametrize("chosen", [False, True])
def test_bases_are_sliced_as_the_list_of_all_would_be(
    store: Store, work: Work, wording: Reflection, chosen: bool
) -> None:
    source, first, _ = _stages(wording)
    choice = Select(phase="instruction", rows=source, reflections=(first,), selector=Random(p=0.5))
    _made(store, source, first, choice)
    rows, candidates = work.read(source), work.read(first)
    taken = None
    if chosen:
        decided = work.read(choice).table("decisions").to_pylist()
        taken = {(line["id"], line["chosen"]) for line in decided}
        assert {version for _, version in taken} == {"original", "instruction"}
    whole = bases(wording, to_rows(rows.table("rows")), candidates.table("candidates").to_pylist(), taken)
    found = Bases(wording, rows.file("rows"), candidates.file("candidates"), taken)
    assert len(found) == len(whole) == COUNT * (1 if chosen else 2)
    assert list(found) == whole
    for start in range(0, len(whole), 5):
        got: list[Base] = found[start : start + 8]
        assert got == whole[start : start + 8]
    assert list(Bases(wording, rows.file("rows"))) == bases(wording, to_rows(rows.table("rows")), [])
