"""Pilots of pairs and repeated selections: on the micro-world, and by hand."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from srecycle.report.runs import read_runs
from srecycle.study.__main__ import main
from srecycle.study.matrix import ranked
from srecycle.study.matrix_chart import matrix_chart
from srecycle.study.stability import compared, flips, intervals
from srecycle.study.sweep import Axis

SMALL = ("data.count=24", "tracker=jsonl", "student.threads=1")


def _lines(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_matrix_figures_are_those_of_the_pairs_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    asked = ["matrix", "teacher=scripted,scripted_sloppy", "student=testbed_weak", *SMALL, "--rows", "12"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 0
    lines = _lines(tmp_path / "out" / "matrix.csv")
    runs = {run.choices["teacher"]: run for run in read_runs(tmp_path / "store", "matrix")}
    assert [line["teacher"] for line in lines] == ["scripted", "scripted_sloppy"] and set(runs) == {
        line["teacher"] for line in lines
    }
    for line in lines:
        run = runs[line["teacher"]]
        training = pa.parquet.read_table(run.artifact("assemble") / "training.parquet").to_pylist()
        scores = pa.parquet.read_table(run.artifact("scores") / "scores.parquet").to_pylist()
        of = {(one["id"], one["version"]): one for one in scores}
        kept = [of[one["id"], one["version"]]["rank_surprisal"] for one in training if one["kept"]]
        gains = [
            of[one["id"], one["version"]]["ifd"] - of[one["id"], "original"]["ifd"]
            for one in training
            if one["version"] != "original" and of[one["id"], one["version"]]["ifd"] is not None
        ]
        assert int(line["rows"]) == 12 and int(line["kept"]) == len(kept) > 0
        assert float(line["rank_surprisal"]) == pytest.approx(np.median(kept))
        assert float(line["gain/ifd"]) == pytest.approx(np.median(gains))
        assert float(line["acceptance/instruction"]) == run.metrics["select_instruction/acceptance"]
    better = min(lines, key=lambda line: float(line["rank_surprisal"]))
    assert better["predicted_rank"] == "1" and sorted(line["predicted_rank"] for line in lines) == ["1", "2"]
    assert "<svg" in (tmp_path / "out" / "matrix.svg").read_text()


def test_ranked_orders_pairs_of_one_student_and_leaves_out_what_has_no_ratio() -> None:
    axes = [Axis(name="teacher", values=("a", "b", "c")), Axis(name="student", values=("s", "t"))]
    ratios = {("a", "s"): 3.0, ("b", "s"): 2.0, ("c", "s"): None, ("a", "t"): 1.0, ("b", "t"): 1.0, ("c", "t"): 5.0}
    lines = [{"teacher": t, "student": s, "rank_surprisal": value} for (t, s), value in ratios.items()]
    assert [line["predicted_rank"] for line in ranked(lines, axes)] == [2, 1, None, 1, 1, 3]


def test_matrix_chart_pair_without_a_figure_has_an_empty_cell() -> None:
    axes = [Axis(name="teacher", values=("a", "b"))]
    line = {"teacher": "a", "rows": 5, "kept_share": 0.5, "gain/ifd": None, "rank_surprisal": 2.0, "usd": None}
    chart = matrix_chart(axes, [line, {**line, "teacher": "b", "rank_surprisal": None}])
    told = [mark.title for mark in chart.marks if mark.kind == "rect"]
    assert told == ["a, all: 0.5", "b, all: 0.5", "a, all: 2", "b, all: -"]


def _selection(name: str, kept: list[int], versions: str, scores: list[float] | None = None) -> Any:
    """Return a selection of five rows, a letter a version taken by both phases."""
    ids = [f"r{n}" for n in range(5)]
    lines = [{"id": i, "chosen": v, "margin": 0.5, "reason": "x"} for i, v in zip(ids, versions, strict=True)]
    table = pa.Table.from_pylist(lines)
    known = None
    if scores is not None:
        columns = {"id": ids, "version": ["original"] * 5, "ifd": scores, "r_ifd": [1.0] * 5}
        known = pa.table(columns)
    return SimpleNamespace(
        done=SimpleNamespace(run=SimpleNamespace(name=name)),
        ids=ids,
        kept=np.isin(np.arange(5), kept),
        version=np.array(list(versions), dtype=object),
        decisions={"instruction": table, "response": table},
        taken=dict.fromkeys(("instruction", "response"), np.array([version != "o" for version in versions])),
        scores=known,
    )


def test_compared_figures_are_those_by_hand() -> None:
    first = _selection("first", [0, 1, 2], "oibro", [1.0, 2.0, 3.0, 4.0, 5.0])
    other = _selection("other", [1, 2, 3], "oiroo", [1.0, 2.0, 3.0, 5.0, 4.0])
    found = compared(first, other)
    # Kept by both: rows 1 and 2, row 2 in different versions; by either: four rows, five pairs. Row 3 is decided
    # otherwise; row 2 takes its challenger in both.
    assert found["jaccard_rows"] == 2 / 4 and found["jaccard"] == 1 / 5
    assert found["kept"] == 3 and found["kept_share"] == 3 / 5
    assert found["flipped/instruction"] == found["flipped/response"] == 1 / 5
    assert found["spearman/ifd"] == pytest.approx(0.9) and found["spearman/r_ifd"] is None
    assert [(flip["id"], flip["phase"], flip["first_chosen"], flip["chosen"]) for flip in flips(first, other)] == [
        ("r3", "instruction", "r", "o"),
        ("r3", "response", "r", "o"),
    ]


def test_compared_nothing_kept_or_scored_has_no_figure() -> None:
    first, other = _selection("first", [], "ooooo"), _selection("other", [], "ooooo")
    found = compared(first, other)
    assert found["jaccard"] is None and found["jaccard_rows"] is None and found["spearman/ifd"] is None
    assert found["kept_share"] == 0.0 and flips(first, other) == []


def test_intervals_hold_the_figure_and_are_the_seeds() -> None:
    first, other = _selection("first", [0, 1, 2], "oibro"), _selection("other", [1, 2, 3], "oirro")
    found = intervals(first, other, 300, 0)
    assert found["kept_share/low"] < 3 / 5 < found["kept_share/high"]
    assert found["jaccard_rows/low"] <= 2 / 4 <= found["jaccard_rows/high"]
    assert intervals(first, other, 7, 0) == intervals(first, other, 7, 0) != intervals(first, other, 7, 1)
    assert intervals(first, other, 0, 0) == {}


def test_stability_settings_are_held_against_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    asked = ["stability", "student=testbed_weak", "selector.response.margin=0,0.4", *SMALL, "--bootstrap", "20"]
    assert main([*asked, "--out", str(tmp_path / "out")]) == 0
    first, other = _lines(tmp_path / "out" / "stability.csv")
    assert float(first["jaccard"]) == 1 and float(first["flipped/response"]) == 0
    assert float(other["flipped/instruction"]) == 0 and float(other["flipped/response"]) > 0
    changed = _lines(tmp_path / "out" / "flips.csv")
    assert len(changed) == round(float(other["flipped/response"]) * 24)
    assert all(0 < float(flip["margin"]) <= 0.4 and flip["reason"] == "within_margin" for flip in changed)


def test_stability_other_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    assert main(["stability", "student=testbed_weak", "seed=0,1", *SMALL]) == 2
    assert "select from different rows" in capsys.readouterr().err and not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["stability", "selector.response.margin=0,1", "--bootstrap", "-5"], "--bootstrap -5 is no number"),
        (
            ["matrix", "selector@selector.instruction=never", "selector@selector.response=always", "keep=[none]"],
            "scored",
        ),
    ],
)
def test_study_that_can_tell_nothing_is_refused_before_work(
    asked: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    assert main([*asked, "student=testbed_weak", *SMALL]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "store").exists()


def test_matrix_mixed_rows_are_nobodys_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    for name, mixed in (("plain", "0"), ("mixed", "1.0")):
        asked = ["matrix", "student=testbed_weak", f"assemble.originals={mixed}", *SMALL, "--rows", "12"]
        assert main([*asked, "--out", str(tmp_path / name)]) == 0
    assert _lines(tmp_path / "plain" / "matrix.csv") == _lines(tmp_path / "mixed" / "matrix.csv")


def test_stability_one_setting_is_refused_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    assert main(["stability", "student=testbed_weak", *SMALL]) == 2
    assert "one setting alone" in capsys.readouterr().err and not (tmp_path / "store").exists()
