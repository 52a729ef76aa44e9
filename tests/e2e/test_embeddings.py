"""Selection by coherence and keeping by coverage, from the command line's words to the training set."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import Go, Make, ran

pytestmark = pytest.mark.e2e

COHERENT = (
    "data.count=24",
    "tracker=jsonl",
    "until=assemble",
    "selector@selector.instruction=coherence",
    "selector@selector.response=coherence",
    "keep=[coverage,response_reflected_only]",
    "keep.coverage.fraction=0.5",
    "keep.coverage.clusters=4",
)


def test_chain_by_coherence_and_coverage_needs_embeddings_and_no_likelihoods(go: Go) -> None:
    made = go(*COHERENT)
    reflections = {"reflect_instruction", "reflect_response"}
    assert ran(made) == {"source", *reflections, "embeddings", "select_instruction", "select_response", "assemble"}
    embedded = pq.read_table(made.artifact("embeddings") / "embeddings.parquet").to_pylist()
    cosines = {(line["id"], line["version"]): line["coherence"] for line in embedded}
    for phase in ("instruction", "response"):
        decisions = pq.read_table(made.artifact(f"select_{phase}") / "decisions.parquet").to_pylist()
        assert {"challenger_won", "incumbent_won"} <= {line["reason"] for line in decisions}
        for line in decisions:
            values = [cosines.get((line["id"], line[side])) for side in ("incumbent", "challenger")]
            assert [line["incumbent_value"], line["challenger_value"]] == values
            if None not in values:
                assert line["chosen"] == line["incumbent" if values[0] >= values[1] else "challenger"]
    training = pq.read_table(made.artifact("assemble") / "training.parquet").to_pylist()
    reflected = [line for line in training if line["reason"] != "response_not_reflected"]
    assert len(training) == 24 and 0 < len(reflected) < 24
    assert sum(line["kept"] for line in reflected) == round(len(reflected) / 2)
    assert {line["reason"] for line in reflected} == {"", "already_covered"}
    assert made.metrics["embeddings/embedder"] == "StudentEmbedder"


@pytest.mark.slow
def test_chain_in_the_papers_order_embeds_each_version_once(go: Go) -> None:
    made = go(*COHERENT, "reflection.scope=chosen")
    assert {"embeddings", "embeddings_response"} <= ran(made)
    tables = [
        pq.read_table(made.artifact(name) / "embeddings.parquet") for name in ("embeddings", "embeddings_response")
    ]
    versions = [{*zip(one["id"].to_pylist(), one["version"].to_pylist(), strict=True)} for one in tables]
    assert versions[0] and versions[1] and not versions[0] & versions[1]
    assert 0 < made.metrics["assemble/kept"] < 24


@pytest.mark.slow
def test_chain_duplicates_are_refused_by_the_questions_that_were_taken(go: Go, tmp_path: Path) -> None:
    earlier = [{"role": "user", "content": "Tell me a story."}, {"role": "assistant", "content": "Once upon a time."}]
    pairs = [("Name a fruit.", []), ("name  a fruit.", []), ("Go on.", earlier), ("Go on.", [])]
    turns = [[*history, {"role": "user", "content": one}] for one, history in pairs]
    rows = [{"messages": [*before, {"role": "assistant", "content": "Yes."}]} for before in turns]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = ("data=chat", f"data.path={tmp_path / 'rows.json'}", "student=testbed_weak", "teacher=scripted")
    made = go(*source, "tracker=jsonl", "until=assemble", "keep=[deduplicated]", *NEVER)
    training = pq.read_table(made.artifact("assemble") / "training.parquet")
    assert training["reason"].to_pylist() == ["", "duplicate", "", ""]
    assert not {"embeddings", "likelihoods"} & ran(made)


NEVER = ("selector@selector.instruction=never", "selector@selector.response=never")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("embedder.dimensions=8", True),
        ("student=testbed_strong", True),
        ("embedder.batch_tokens=9", False),
        ("keep.coverage.clusters=3", False),
        ("selector.response.margin=0.1", False),
    ],
)
def test_plan_embeddings_depend_on_embedder_and_student_only(make: Make, override: str, changed: bool) -> None:
    keys = [make(*COHERENT, *more).plan()["embeddings"].key for more in ((), (override,))]
    assert (keys[0] != keys[1]) == changed
