"""Select and Assemble over a hand-made store: one decision a row, and every row in the training table."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from srecycle.keep import Keep
from srecycle.keep.limit import IFDMax, ReversedIFDMax
from srecycle.keep.none import KeepAll
from srecycle.keep.reflected import ResponseReflectedOnly
from srecycle.rows import KINDS
from srecycle.scorer import LIKELIHOODS
from srecycle.scorer.scorer import SCORES
from srecycle.selector import Score, Select
from srecycle.selector.always import Always
from srecycle.selector.ifd import IFD
from srecycle.selector.never import Never
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import materialize
from tests.unit.selector.bench import LOSSES, ROWS, Bench


@pytest.fixture
def bench(tmp_path: Path, tiny_models: Mapping[str, Path]) -> Bench:
    return Bench(tmp_path, tiny_models["llama"])


def _paper(bench: Bench) -> Select:
    return bench.select("response", ReversedIFD(), bench.select("instruction", IFD()))


def test_select_paper_order_decides_as_by_hand(bench: Bench) -> None:
    first = bench.select("instruction", IFD())
    assert bench.decided(first) == [
        ("instruction", "instruction", "challenger_won"),
        ("instruction", "original", "incumbent_won"),
        ("instruction", "original", "challenger_not_recorded"),
        ("instruction", "instruction", "challenger_won"),
        ("instruction", "original", "incumbent_empty_response"),
    ]
    assert bench.decided(bench.select("response", ReversedIFD(), first)) == [
        ("both", "both", "challenger_won"),
        ("response", "response", "challenger_won"),
        ("response", "original", "tie"),
        ("both", "instruction", "challenger_not_recorded"),
        ("response", "original", "incumbent_empty_response"),
    ]


def test_select_tie_is_a_setting(bench: Bench) -> None:
    second = bench.select("response", ReversedIFD(tie="challenger"), bench.select("instruction", IFD()))
    assert bench.decided(second)[2] == ("response", "response", "tie")


def test_select_score_that_overflowed_is_non_finite(tmp_path: Path, tiny_models: Mapping[str, Path]) -> None:
    """Its likelihoods are ok, but their ratio is no number: neither side of such a pair can win by it."""
    losses = dict(LOSSES) | {(0, "instruction"): (2000.0, 0.5), (1, "original"): (2000.0, 0.5)}
    bench = Bench(tmp_path, tiny_models["llama"], losses)
    assert bench.decided(bench.select("instruction", IFD()))[:2] == [
        ("instruction", "original", "challenger_non_finite"),
        ("instruction", "original", "incumbent_non_finite"),
    ]
    kept = bench.assemble(bench.select("response", Never()), {"ifd": IFDMax()}).table("training")
    assert kept["reason"].to_pylist()[1] == "ifd_non_finite"


def test_select_decisions_hold_values_and_margin(bench: Bench) -> None:
    table = bench.store_of(_paper(bench)).table("decisions").to_pylist()
    assert table[0]["incumbent_value"] == pytest.approx(0.6065306597, rel=1e-9)
    assert table[0]["challenger_value"] == pytest.approx(0.5488116361, rel=1e-9)
    assert table[0]["margin"] == pytest.approx(0.6065306597 - 0.5488116361, rel=1e-7)
    assert table[4]["incumbent_value"] is None and table[4]["margin"] is None


def test_select_metrics_count_every_row_once(bench: Bench) -> None:
    metrics = bench.store_of(_paper(bench)).metrics
    assert (metrics["rows"], metrics["taken"], metrics["acceptance"]) == (5, 2, 0.4)
    assert sum(count for name, count in metrics.items() if name.startswith("reason/")) == 5


def test_select_never_and_always_need_no_likelihoods(bench: Bench) -> None:
    assert {chosen for _, chosen, _ in bench.decided(bench.select("instruction", Never()))} == {"original"}
    taken = [chosen for _, chosen, _ in bench.decided(bench.select("response", Always()))]
    assert taken == ["response", "response", "response", "original", "response"]


def test_assemble_keeps_every_row_with_its_version_and_reason(bench: Bench) -> None:
    keep: dict[str, Keep] = {"ifd": IFDMax(), "r_ifd": ReversedIFDMax(), "only": ResponseReflectedOnly()}
    made = bench.assemble(_paper(bench), keep)
    lines = made.table("training").to_pylist()
    assert [(line["id"], line["version"], line["kept"], line["reason"]) for line in lines] == [
        (bench.ids[0], "both", True, ""),
        (bench.ids[1], "response", False, "ifd_too_high"),
        (bench.ids[2], "original", False, "response_not_reflected"),
        (bench.ids[3], "instruction", False, "response_not_reflected"),
        (bench.ids[4], "original", False, "ifd_empty_response"),
    ]
    texts = [(line["instruction"], line["response"]) for line in lines]
    assert texts == [("I0", "BB0"), ("i1", "B1"), ("i2", "r2"), ("I3", "A3"), ("i4", "")]
    assert [line["position"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["ifd"] == pytest.approx(0.5488116361) and lines[4]["ifd"] is None
    assert made.metrics["kept"] == 1 and made.metrics["rows"] == 5
    assert sum(value for name, value in made.metrics.items() if name.startswith("refused/")) == 4
    assert sum(value for name, value in made.metrics.items() if name.startswith("taken/")) == 5


def test_score_writes_every_version_with_its_scores_or_its_reason(bench: Bench) -> None:
    stage = Score(rows=bench.source, reflections=bench.reflections, likelihoods=(bench.likelihoods,))
    made = materialize(stage, bench.store).artifact
    lines = made.table("scores").to_pylist()
    status = {(bench.ids.index(line["id"]), line["version"]): line["status"] for line in lines}
    assert status == {
        (row, version): "ok" if known != "empty_response" else known
        for row in range(ROWS)
        for version, known in (
            (version, LOSSES.get((row, version), "none")) for version in ("original", "instruction", "response", "both")
        )
        if known != "none"
    } | {
        **{(2, "instruction"): "not_recorded", (2, "both"): "base_unusable"},
        **{(3, "response"): "not_recorded", (3, "both"): "not_recorded"},
    }
    places = [(line["position"], KINDS.index(line["version"])) for line in lines]
    assert places == sorted(places) and [row for row, _ in places] == [bench.ids.index(line["id"]) for line in lines]
    for line in lines:
        losses = LOSSES.get((line["position"], line["version"]))
        if line["status"] != "ok":
            assert [line[name] for name in (*LIKELIHOODS, *SCORES)] == [None] * 16
            continue
        assert isinstance(losses, tuple)
        assert (line["loss_y_given_x"], line["loss_x_given_y"], line["tokens_y"]) == (*losses, 1)
        assert (line["ifd"], line["r_ifd"]) == pytest.approx((math.exp(losses[0] - 1), math.exp(losses[1] - 1)))
        assert line["grape"] == -losses[0]
        assert (line["shift_y"], line["s_ifd"], line["rank_y_given_x"], line["rank_surprisal"]) == (None,) * 4
    texts = {(line["position"], line["version"]): (line["instruction"], line["response"]) for line in lines}
    assert texts[0, "both"] == ("I0", "BB0") and texts[1, "original"] == ("i1", "r1")
    assert made.metrics == {
        "scored": 15,
        "status/base_unusable": 1,
        "status/empty_response": 1,
        "status/not_recorded": 3,
    }


def test_assemble_keep_all_keeps_all(bench: Bench) -> None:
    made = bench.assemble(bench.select("response", Never()), {"none": KeepAll()})
    assert made.metrics["kept"] == 5
    assert set(made.table("training")["reason"].to_pylist()) == {""}


def test_assemble_order_of_filters_changes_no_row_kept(bench: Bench) -> None:
    decisions = _paper(bench)
    names = [("a", "b"), ("b", "a")]
    kept = [
        bench.assemble(decisions, {one: IFDMax(), other: ResponseReflectedOnly()}).table("training")["kept"].to_pylist()
        for one, other in names
    ]
    assert kept[0] == kept[1]
