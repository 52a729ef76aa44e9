"""Select and Assemble over a hand-made store: one decision a row, and every row in the training table."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import KINDS, LIKELIHOOD_SCHEMA
from srecycle.scorer import LIKELIHOODS, Scorer
from srecycle.scorer.scorer import SCORES
from srecycle.selector import Assemble, Keep, Score, Select, Selector
from srecycle.selector.always import Always
from srecycle.selector.ifd import IFD
from srecycle.selector.keep import IFDMax, KeepAll, ResponseReflectedOnly, ReversedIFDMax
from srecycle.selector.never import Never
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.stage import materialize
from srecycle.store import Artifact, Store
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.teacher.replay import ReplayTeacher

ROWS = 5
# (loss_y_given_x, loss_x_given_y) of each version; L(y) and L(x) are 1, so IFD < 1 means below 1. Row 2's teacher
# wrote no new instruction, row 3's no better response, and row 4's original has no likelihood.
Losses = Mapping[tuple[int, str], tuple[float, float] | str]
LOSSES: Losses = {
    (0, "original"): (0.5, 0.5),
    (0, "instruction"): (0.6, 0.5),
    (0, "response"): (0.5, 0.1),
    (0, "both"): (0.4, 0.4),
    (1, "original"): (0.5, 0.5),
    (1, "instruction"): (0.4, 0.5),
    (1, "response"): (1.5, 0.1),
    (1, "both"): (0.5, 0.5),
    (2, "original"): (0.5, 0.5),
    (2, "response"): (0.5, 0.5),
    (3, "original"): (0.5, 0.5),
    (3, "instruction"): (0.9, 0.5),
    (4, "original"): "empty_response",
    (4, "instruction"): (0.9, 0.5),
    (4, "response"): (0.5, 0.2),
    (4, "both"): (0.5, 0.2),
}


class Bench:
    """Real source and reflections of five rows, and the likelihoods above."""

    def __init__(self, root: Path, model: Path, losses: Losses = LOSSES) -> None:
        self.losses = losses
        self.store = Store(root / "store")
        rows = [{"instruction": f"i{n}", "output": f"r{n}" if n != 4 else ""} for n in range(ROWS)]
        (root / "rows.json").write_text(json.dumps(rows))
        pair = "[New Instruction]\nI{n}\n[End]\n[New Answer]\nA{n}\n[End]"
        kinds = {
            "instruction": pair,
            "response_original": "[Better Answer]\nB{n}",
            "response_reflected": "[Better Answer]\nBB{n}",
        }
        left_out = {(2, "instruction"), (2, "response_reflected"), (3, "response_original"), (3, "response_reflected")}
        replies = [
            {"index": n, "kind": kind, "reply": reply.replace("{n}", str(n))}
            for n in range(ROWS)
            for kind, reply in kinds.items()
            if (n, kind) not in left_out
        ]
        (root / "replies.jsonl").write_text("\n".join(map(json.dumps, replies)))
        wording = Reflection(
            system="",
            instruction_request="{instruction}{response}",
            response_request="{instruction}{response}",
            input_block="",
            history_block="",
            instruction_criteria=(),
            response_criteria=(),
        )
        parts: dict[str, Any] = {
            "teacher": ReplayTeacher(path=root / "replies.jsonl"),
            "reflection": wording,
            "engine": LocalEngine(),
        }
        self.source = Source(data=Alpaca(path=root / "rows.json"))
        first = Reflect(phase="instruction", rows=self.source, **parts)
        self.reflections = (first, Reflect(phase="response", rows=self.source, instructions=first, **parts))
        for stage in (self.source, *self.reflections):
            materialize(stage, self.store)
        self.ids = self.store_of(self.source).table("rows")["id"].to_pylist()
        self.likelihoods = Likelihoods(
            rows=self.source,
            reflections=self.reflections,
            student=Student(path=str(model)),
            template=PromptTemplate(user="{instruction}", user_with_input="{instruction}{input}"),
            scorer=Scorer(reversed_request="{response}"),
            engine=LocalEngine(),
        )
        self._put_likelihoods()

    def store_of(self, stage: Any) -> Artifact:
        found = self.store.find(stage.name, stage.key)
        assert found is not None
        return found

    def _put_likelihoods(self) -> None:
        names = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")
        lines = []
        for (row, version), losses in self.losses.items():
            known = not isinstance(losses, str)
            values = (losses[0], 1.0, losses[1], 1.0) if known else (None,) * 4
            status = "ok" if known else losses
            counts = {"tokens_y": 1, "tokens_x": 1, "context_truncated": False, "target_truncated": False}
            line = {"id": self.ids[row], "version": version, "status": status, **counts}
            lines.append(line | dict(zip(names, values, strict=True)))
        stage = self.likelihoods
        folder, _, _ = self.store.begin(stage.name, stage.key)
        from srecycle.store import write_table

        write_table(folder / "likelihoods.parquet", pa.Table.from_pylist(lines[::-1], schema=LIKELIHOOD_SCHEMA))
        self.store.commit(stage.name, stage.key, stage.payload, {}, {})

    def select(self, phase: Any, selector: Selector, before: Select | None = None) -> Select:
        stage = Select(
            phase=phase,
            rows=self.source,
            reflections=self.reflections,
            likelihoods=(self.likelihoods,) if selector.needs else (),
            before=before,
            selector=selector,
        )
        materialize(stage, self.store)
        return stage

    def decided(self, stage: Select) -> list[tuple[str, str, str]]:
        lines = self.store_of(stage).table("decisions").to_pylist()
        assert [line["id"] for line in lines] == self.ids
        return [(line["challenger"], line["chosen"], line["reason"]) for line in lines]

    def assemble(self, decisions: Select, keep: dict[str, Keep]) -> Artifact:
        stage = Assemble(
            rows=self.source,
            reflections=self.reflections,
            likelihoods=(self.likelihoods,),
            decisions=decisions,
            keep=keep,
        )
        return materialize(stage, self.store).artifact


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
            assert [line[name] for name in (*LIKELIHOODS, *SCORES)] == [None] * 14
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
