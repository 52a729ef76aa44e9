"""The embeddings stage: one line a version, reasons instead of numbers, and the same bytes after a kill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from srecycle.assemble.stage import chosen_of
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.embedder import Embedder, Embeddings
from srecycle.embedder.stage import embedding_schema, embeddings, whole_instruction
from srecycle.embedder.student import StudentEmbedder
from srecycle.engine.local import LocalEngine
from srecycle.keep.base import EMBEDDING
from srecycle.reflection.versions import VERSION_SCHEMA
from srecycle.selector.base import COHERENCE
from srecycle.selector.grid import version_grid
from srecycle.stage import materialize
from srecycle.store import Artifact, Store, write_json
from srecycle.student import Student
from tests.mortal import KilledError, Mortal

PAIRS = [
    ("Give three tips for staying healthy.", "", "Eat a balanced diet."),
    ("Translate.", "hello", "Bonjour"),
    ("Name the capital of France.", " ", "The capital of France is Paris."),
    ("", "", "No question."),
    ("No answer?", "", " \n"),
    ("Say it again.", "", "hi " * 200),
    ("Name a fruit.", "", "An apple."),
]


def _line(instruction: str, input: str, response: str) -> dict[str, Any]:
    return {"id": "r", "version": "original", "instruction": instruction, "input": input, "response": response}


def _stage(root: Path, model: Path, **settings: Any) -> tuple[Source, Embeddings]:
    write_json(root / "rows.json", [{"instruction": one, "input": i, "output": o} for one, i, o in PAIRS])
    source = Source(data=Alpaca(path=root / "rows.json"))
    student = Student(path=str(model), device="cpu", threads=1)
    parts = {"embedder": StudentEmbedder(dimensions=16), "student": student, "engine": LocalEngine()}
    return source, Embeddings(rows=source, **(parts | settings))


def _made(stages: tuple[Source, Embeddings], store: Store) -> Artifact:
    return [materialize(stage, store).artifact for stage in stages][-1]


def test_embeddings_are_cosines_or_reasons_and_short_vectors(
    store: Store, tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    source, stage = _stage(tmp_path, tiny_models["llama"])
    made = _made((source, stage), store)
    lines = made.table("embeddings").to_pylist()
    rows = store.find(source.name, source.key)
    assert rows is not None and [line["id"] for line in lines] == rows.table("rows")["id"].to_pylist()
    statuses = ["ok", "ok", "ok", "empty_instruction", "empty_response", "ok", "ok"]
    assert [line["status"] for line in lines] == statuses
    assert [line["truncated"] for line in lines] == [False] * 5 + [True, False]
    encoder = StudentEmbedder().load(stage.student)
    projection = StudentEmbedder(dimensions=16).projection(48)
    for line, (instruction, input, response) in zip(lines, PAIRS, strict=True):
        if line["status"] != "ok":
            assert (line["coherence"], line["instruction_embedding"]) == (None, None)
            continue
        whole = f"{instruction}\n{input}" if input.strip() else instruction
        one, other = (vector.astype(np.float64) for vector in encoder.embed([whole, response]).vectors)
        cosine = one @ other / np.sqrt((one @ one) * (other @ other))
        assert line["coherence"] == pytest.approx(cosine, abs=1e-5)
        assert line["instruction_embedding"] == pytest.approx(one @ projection, abs=1e-5)
    cosines = [line["coherence"] for line in lines if line["status"] == "ok"]
    assert len({*np.round(cosines, 4)}) == 5
    assert made.metrics == {
        "versions": 7,
        "embedder": "StudentEmbedder",
        "model": stage.student.resolved()["path"] if stage.student else "",
        "model_dimensions": 48,
        "dimensions": 16,
        "truncated": 1,
        "coherence/p10": pytest.approx(np.quantile(cosines, 0.1)),
        "coherence/median": pytest.approx(np.median(cosines)),
        "coherence/p90": pytest.approx(np.quantile(cosines, 0.9)),
        "status/empty_instruction": 1,
        "status/empty_response": 1,
        "status/ok": 5,
    }


def test_embeddings_input_belongs_to_the_instruction() -> None:
    assert whole_instruction(_line("Translate.", "hello", "")) == "Translate.\nhello"
    assert whole_instruction(_line("Translate.", " ", "")) == "Translate."


def test_embeddings_broken_weights_and_silent_texts_are_reasons(tiny_models: Mapping[str, Path]) -> None:
    student = Student(path=str(tiny_models["llama"]), device="cpu", threads=1)
    encoder = StudentEmbedder().load(student)
    lines = [_line(*PAIRS[0])]
    with torch.no_grad():
        encoder._loaded.model.model.norm.weight.fill_(0)  # type: ignore[attr-defined]
    table = embeddings(encoder, np.eye(48), lines)
    assert table["status"].to_pylist() == ["non_finite"]
    assert table[COHERENCE].to_pylist() == table[EMBEDDING].to_pylist() == [None]
    assert len(embeddings(encoder, np.eye(48), [])) == 0


def test_embeddings_change_with_the_identity_and_with_nothing_else(
    tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    key = _stage(tmp_path, tiny_models["llama"])[1].key

    def other(**settings: Any) -> bool:
        return _stage(tmp_path, tiny_models["llama"], **settings)[1].key != key

    assert not other(embedder=StudentEmbedder(dimensions=16, batch_tokens=7))
    assert not other(engine=LocalEngine(shard_rows=2, workers=2))
    assert other(embedder=StudentEmbedder(dimensions=17))
    assert other(embedder=StudentEmbedder(dimensions=16, projection_seed=1))
    assert _stage(tmp_path, tiny_models["gpt2"])[1].key != key


def test_embeddings_killed_go_on_at_the_shard_with_the_budget_of_before(
    store: Store, tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    def stage(engine: LocalEngine, batch_tokens: int) -> tuple[Source, Embeddings]:
        embedder: Embedder = StudentEmbedder(dimensions=16, batch_tokens=batch_tokens)
        return _stage(tmp_path, tiny_models["llama"], engine=engine, embedder=embedder)

    with pytest.raises(KilledError):
        _made(stage(Mortal(shard_rows=2, shards=2), 20), store)
    _, again = stage(Mortal(shard_rows=500, shards=4 - 2), 5000)
    resumed = materialize(again, store)
    assert resumed.how == "resume" and resumed.artifact.provenance["notes"]["batch_tokens"] == 20
    for number, workers in enumerate((1, 3)):
        whole = _made(stage(LocalEngine(shard_rows=2, workers=workers), 20), Store(tmp_path / f"whole{number}"))
        for name in ("embeddings.parquet", "record.json"):
            assert (resumed.artifact.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_embeddings_reach_selectors_and_filters_by_id_and_version() -> None:
    """The vector of what was taken, and no other, whatever the order of the lines; NaN where there is none."""
    versions = [("a", "original"), ("a", "response"), ("b", "original"), ("b", "response"), ("c", "original")]
    rows = [dict.fromkeys(VERSION_SCHEMA.names, "") | {"position": 0, "history": [], "criteria": []} for _ in versions]
    for row, (identifier, version) in zip(rows, versions, strict=True):
        row.update(id=identifier, version=version, status="ok")
    made = [
        {"id": one, "version": version, "status": "ok", "truncated": False, "coherence": place / 10.0}
        | {"instruction_embedding": [place, -place]}
        for place, (one, version) in enumerate(versions)
    ]
    made[4].update(status="empty_response", coherence=None, instruction_embedding=None)
    tables = [pa.Table.from_pylist(part, schema=embedding_schema(2)) for part in (made[::-2], made[-2::-2])]
    grid = version_grid(pa.Table.from_pylist(rows, schema=VERSION_SCHEMA), [], tables)
    number = grid.numbers(["response", "original", "original"])
    chosen = chosen_of(grid, number, {EMBEDDING, COHERENCE}, tables)
    assert chosen.id.tolist() == ["a", "b", "c"]
    assert chosen.vectors[EMBEDDING][:2].tolist() == [[1, -1], [2, -2]] and np.isnan(chosen.vectors[EMBEDDING][2]).all()
    assert chosen.columns[COHERENCE][:2].tolist() == [0.1, 0.2] and np.isnan(chosen.columns[COHERENCE][2])
    assert chosen.score_status.tolist() == ["ok", "ok", "empty_response"]
