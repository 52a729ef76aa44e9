"""Preference pairs: what the student took against what it beat, under one instruction."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from srecycle.assemble import Assemble, Assembly
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.selector.always import Always
from srecycle.selector.ifd import IFD
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import materialize
from srecycle.store import Artifact
from srecycle.trainer.preferences import Preferences
from tests.unit.selector.bench import Bench


@pytest.fixture
def bench(tmp_path: Path, tiny_models: Mapping[str, Path]) -> Bench:
    return Bench(tmp_path, tiny_models["llama"])


def _made(bench: Bench, by_score: bool = True) -> Artifact:
    first = bench.select("instruction", IFD())
    second = bench.select("response", ReversedIFD() if by_score else Always(), first)
    keep = {"only": ResponseReflectedOnly()}
    bench.assemble(second, keep)
    training = Assemble(
        rows=bench.source,
        reflections=bench.reflections,
        likelihoods=(bench.likelihoods,),
        decisions=second,
        keep=keep,
        assembly=Assembly(),
    )
    stage = Preferences(
        rows=bench.source, reflections=bench.reflections, instruction=first, decisions=second, training=training
    )
    return materialize(stage, bench.store).artifact


def test_preferences_pairs_share_their_instruction_and_hold_what_beat_what(bench: Bench) -> None:
    lines = _made(bench).table("preferences").to_pylist()
    # Row 0 took x_ins, and of its answers the better one; row 1 kept x0. Row 2's answers tie, 3 has no other, 4's
    # original can't be scored.
    statuses = [line["status"] for line in lines]
    assert statuses[:3] == ["ok", "ok", "tie"] and statuses[4] == "incumbent_empty_response"
    assert statuses[3].startswith("challenger_") and statuses[3] != "challenger_won"
    told = [(line["instruction"], line["chosen"], line["rejected"], line["kept"]) for line in lines[:2]]
    assert told == [("I0", "BB0", "A0", True), ("i1", "B1", "r1", True)]
    assert all(line["chosen"] == line["rejected"] == "" for line in lines[2:])
    for line in lines[:2]:
        assert line["score"] == "r_ifd" and line["chosen_value"] < line["rejected_value"]


def test_preferences_metrics_count_every_row_and_what_is_not_comparable(bench: Bench) -> None:
    metrics = _made(bench).metrics
    assert metrics["rows"] == 5 == metrics["pairs"] + sum(v for k, v in metrics.items() if k.startswith("no_pair/"))
    assert metrics["pairs"] == 2 and metrics["ordered_by"] == "r_ifd"
    assert metrics["not_comparable/instruction_phase"] == 3  # rows 0, 1 and 3 were decided there


def test_preferences_selector_without_a_score_is_named(bench: Bench) -> None:
    made = _made(bench, by_score=False)
    assert made.metrics["ordered_by"] == "always"
    lines = made.table("preferences").to_pylist()
    assert [line["chosen_value"] for line in lines if line["status"] == "ok"] == [None] * made.metrics["pairs"]
    assert made.metrics["pairs"] >= 3
