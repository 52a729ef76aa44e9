"""Figures of outputs against counts made by hand; sampling that neither batches nor a kill change."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.config import fingerprint, identity
from srecycle.data.alpaca import Alpaca
from srecycle.data.testbed import Testbed as World
from srecycle.evaluator.base import Subject
from srecycle.evaluator.collapse import Collapse, figures, tail
from srecycle.rows import TRAINING_SCHEMA
from srecycle.stage import Metrics, Work
from srecycle.store import Store
from srecycle.student import PromptTemplate, Student

BASE = Path(__file__).parents[3] / "srecycle" / "testbed" / "bases" / "weak"
TEMPLATE = PromptTemplate(
    user="question : {instruction} reply :",
    user_with_input="question : {instruction} {input} reply :",
    response_prefix=" ",
)
HELD_OUT = World(count=12, world_seed=1000, mix={"ok": 1.0})


def _subject() -> Subject:
    student = Student(path=str(BASE), max_length=256, device="cpu", threads=1)
    return Subject(student=student, template=TEMPLATE, adapter=None, training=TRAINING_SCHEMA.empty_table())


def _measured(evaluator: Collapse, root: Path) -> tuple[Metrics, pa.Table]:
    for name in ("made", "scratch"):
        (root / name).mkdir(parents=True, exist_ok=True)
    work = Work(store=Store(root / "store"), folder=root / "made", scratch=root / "scratch")
    metrics = evaluator.evaluate(_subject(), work)
    file = root / "made" / "outputs.parquet"
    return metrics, pq.read_table(file) if file.exists() else pa.table({})


def _ids(*texts: str) -> list[tuple[Any, ...]]:
    return [tuple(text.split()) for text in texts]


def test_figures_are_those_counted_by_hand() -> None:
    texts = _ids("a b a b a b", "a b c", "", "d", "a a b a a c")
    found = figures(texts, _ids("a a a a a b b b b c c e", "f"), 0.2)
    # 16 tokens of 4 kinds; 12 bigrams: ab ba bc aa ac; 9 trigrams: aba bab abc aab baa aac.
    assert found["distinct/1"] == pytest.approx(4 / 16)
    assert found["distinct/2"] == pytest.approx(5 / 12)
    assert found["distinct/3"] == pytest.approx(6 / 9)
    # 4-grams: abab baba abab, of which one is repeated; aaba abaa baac, of which none is; the others are too short.
    assert found["repeated/mean"] == pytest.approx(1 / 6) == found["repeated/mean_stderr"]
    assert found["length/mean"] == pytest.approx(16 / 5)
    assert found["length/mean_stderr"] == pytest.approx((30.8 / 4 / 5) ** 0.5)
    # Of 13 tokens, e and f (once each) make up 2, short of 2.6; with c (twice) it is 4. c occurs in the outputs.
    assert (found["tail_tokens/types"], found["tail_tokens/coverage"]) == (3, pytest.approx(1 / 3))
    # Bigrams of the reference: aa 4, ab 1, bb 3, bc 1, cc 1, ce 1. Those that occur once make up 4 of 11.
    assert (found["tail_bigrams/types"], found["tail_bigrams/coverage"]) == (4, pytest.approx(2 / 4))


def test_figures_that_nothing_can_be_said_of_are_absent() -> None:
    found = figures(_ids("", ""), _ids("a"), 0.1)
    assert found == {
        "length/mean": 0.0,
        "length/mean_stderr": 0.0,
        "tail_tokens/coverage": 0.0,
        "tail_tokens/types": 1,
    }


def test_tail_takes_all_types_of_a_count_or_none() -> None:
    words = [(word,) for word in ["a", "a", "a", "a", "b", "b", "c", "d", "e"]]
    assert tail(words, 0.01) == {("c",), ("d",), ("e",)} == tail(words, 1 / 3)
    assert tail(words, 0.34) == {("b",), ("c",), ("d",), ("e",)}
    assert tail([], 0.5) == set()


def test_collapse_outputs_depend_on_the_seed_and_not_on_batches(tmp_path: Path) -> None:
    one, other, third = (
        Collapse(held_out=HELD_OUT, max_new_tokens=24, batch_tokens=tokens, seed=seed)
        for tokens, seed in ((1, 0), (100_000, 0), (100_000, 1))
    )
    assert fingerprint(identity(one)) == fingerprint(identity(other)) != fingerprint(identity(third))
    (first, table), (second, same), (_, different) = (
        _measured(evaluator, tmp_path / str(place)) for place, evaluator in enumerate((one, other, third))
    )
    assert first == second and table.equals(same) and not table["output"].equals(different["output"])
    assert first["rows"] == len(table) == 12 and len(set(table["output"].to_pylist())) > 6
    assert 0 < first["tail_tokens/coverage"] <= 1 and 0 < first["distinct/1"] < first["distinct/3"] <= 1
    assert first["cut_share"] == table["finish_reason"].to_pylist().count("length") / 12


def test_collapse_outputs_are_generated_once(tmp_path: Path) -> None:
    first, table = _measured(Collapse(held_out=HELD_OUT, max_new_tokens=24), tmp_path)
    (record,) = (tmp_path / "store" / "artifacts" / "answers").glob("*/record.json")
    made = record.stat().st_mtime_ns
    other, same = _measured(Collapse(held_out=HELD_OUT, max_new_tokens=24, tail_share=0.4), tmp_path)
    assert record.stat().st_mtime_ns == made and same.equals(table)
    assert other["tail_tokens/types"] > first["tail_tokens/types"]


def test_collapse_counts_prompts_that_have_no_output(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    long = "reverse the list " * 200
    rows = [{"instruction": long, "output": "1 ."}, {"instruction": "reverse the list : 1 2 .", "output": "2 1 ."}]
    file.write_text(json.dumps([*rows, {"instruction": "reverse the list : 2 3 .", "output": "3 2 ."}]))
    metrics, table = _measured(Collapse(held_out=Alpaca(path=file), max_new_tokens=24), tmp_path)
    assert (metrics["rows"], metrics["unanswered/too_long"]) == (2, 1)
    assert table["reference"].to_pylist() == ["2 1 .", "3 2 ."]
    assert [one[:20] for one in table["instruction"].to_pylist()] == ["reverse the list : 1", "reverse the list : 2"]


def test_collapse_without_anything_held_out_gives_a_reason(tmp_path: Path) -> None:
    assert _measured(Collapse(), tmp_path / "none")[0] == {"reason": "no_held_out_rows"}
    file = tmp_path / "empty.json"
    file.write_text(json.dumps([{"instruction": "Say.", "output": " "}]))
    assert _measured(Collapse(held_out=Alpaca(path=file)), tmp_path / "empty")[0] == {"reason": "no_held_out_rows"}
