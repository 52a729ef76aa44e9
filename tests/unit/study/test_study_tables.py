"""The tables of studies, on stores whose figures are known by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from srecycle.errors import UserError
from srecycle.study.__main__ import main
from srecycle.study.auc import auc, aucs
from srecycle.study.contrasts import Estimate
from srecycle.study.outcomes import Outcomes, answers_of, read_outcomes
from srecycle.study.plan import Cell, Plan, read_plan
from srecycle.study.result_charts import levels_chart
from srecycle.study.table import KINDS, made_tables, markdown
from srecycle.study.tables import Made, asked
from srecycle.testbed.originals import originals
from srecycle.verifier.faults import fault
from tests.unit.study.made_up import SPLITS, write_runs

PLAN = """
name = "try"
common = ["seed={seed}"]
[factors]
seed = [0, 1, 2]
student = ["weak", "strong"]
[sets.student]
weak = ["student=testbed_weak"]
strong = ["student=testbed_strong"]
[arms]
ours = { set = ["name=ours"] }
worse = { set = ["name=worse"] }
same = { set = ["name=same"] }
[[blocks]]
name = "main"
arms = ["ours", "worse", "same"]
[phrases]
habit = "ours ,"
"""


def _plan(tmp_path: Path, more: str = "", text: str = PLAN) -> Plan:
    (tmp_path / "study.toml").write_text(text + more)
    return read_plan(tmp_path)


def _table(outcomes: Outcomes, **spec: Any) -> Made:
    return KINDS[spec["kind"]](asked(outcomes, {"title": "t", "blocks": ["main"], **spec}))


def _right(cell: Cell, split: str, item: int) -> float:
    """Arms `ours` and `same` answer the first 12 of 20, `worse` the first 8, and none anything of `longer`."""
    return float(split != "longer" and item < (8 if cell.arm == "worse" else 12))


@pytest.fixture
def outcomes(tmp_path: Path) -> Outcomes:
    plan = _plan(tmp_path)
    write_runs(plan, tmp_path / "store", _right, metrics=lambda cell: {"assemble/kept": 10 + int(cell.factors["seed"])})
    return read_outcomes(plan, tmp_path / "store")


def test_accuracy_is_told_by_rows_columns_and_splits(outcomes: Outcomes) -> None:
    made = _table(outcomes, kind="accuracy", columns=["student"])
    assert list(made.heads) == ["arm", "weak", "strong"] and [row[0] for row in made.rows] == ["ours", "worse", "same"]
    assert all(cell.startswith("0.450 ± ") for cell in made.rows[0][1:])  # 0.6 in three of four splits
    assert made.rows[1][1].startswith("0.300 ± ")
    inside, outside = (
        _table(outcomes, kind="accuracy", splits=splits).rows[0][1][:5]
        for splits in ("in domain", "out of distribution")
    )
    assert (inside, outside) == ("0.600", "0.300")
    assert _table(outcomes, kind="accuracy", splits="longer").rows[0][1] == "0.000 ± 0.000"


def test_answers_of_pairs_items_by_their_number(outcomes: Outcomes) -> None:
    found = answers_of(outcomes.lines, ["arm"])
    assert tuple(found.splits) == tuple(sorted(SPLITS))
    known = found.runs[0].right[found.splits.index("known")]
    assert known.tolist() == [1.0] * 12 + [0.0] * 8


def test_contrasts_differences_intervals_and_holm(outcomes: Outcomes) -> None:
    made = _table(outcomes, kind="contrasts", ours="ours", against=["worse", "same"], columns=["student"], figure="f")
    worse, same = made.rows
    assert worse[:1] == ["worse"] and worse[1].startswith("+15.0 (") and worse[3].startswith("+15.0 (")
    assert same[1:] == ["+0.0 (+0.0 to +0.0)"] * 3 + ["1.000"]
    assert made.values[0]["value"] == pytest.approx(0.15) and made.values[0]["low"] > 0
    assert made.values[0]["holm"] == pytest.approx(2 * made.values[0]["p"], abs=1e-5)
    assert made.chart is not None and sum(mark.style == "ring" for mark in made.chart.marks) == (
        made.values[0]["holm"] < 0.05
    )


def test_levels_chart_says_what_tells_its_series_apart(outcomes: Outcomes) -> None:
    made = _table(outcomes, kind="accuracy", columns=["student"], figure="levels")
    assert made.chart is not None
    assert [(one.title, [key.name for key in one.keys]) for one in made.chart.legends] == [
        ("student", ["weak", "strong"])
    ]


def _points(level: str) -> Estimate:
    return Estimate(value=0.5, stderr=0.1, low=0.3, high=0.7, p=0.0, seeds=3, positive=1.0)


@pytest.mark.parametrize(
    ("levels", "even"), [(["0", "0.5", "1"], True), (["0.6", "0.75", "1.0", "1000"], True), (["1", "2", "4"], False)]
)
def test_levels_chart_stands_numbers_at_their_values_but_for_outliers(levels: list[str], even: bool) -> None:
    """Even steps come of even values, or of values that leave no other choice."""
    chart = levels_chart("n", "t", "across", {"one": {level: _points(level) for level in levels}})
    names = [mark for mark in chart.marks if mark.text in levels and mark.geometry["text-anchor"] == "middle"]
    places = [float(mark.geometry["x"]) for mark in names]
    steps = np.diff(places)
    assert len(steps) == len(levels) - 1 and (steps > 0).all() and np.allclose(steps, steps[0], atol=0.02) == even


def test_metrics_and_phrases_are_means_over_seeds(outcomes: Outcomes) -> None:
    named = {"kept": "assemble/kept", "own": "phrase/habit/written", "nothing": "evaluate/other"}
    made = _table(outcomes, kind="metrics", columns=["student"], metrics=named)
    assert made.heads[:3] == ["arm", "weak: kept", "weak: own"]
    assert made.rows[0][1:4] == ["11.0 ± 1.0", "1.000 ± 0.000", "-"] and made.rows[1][2] == "0.000 ± 0.000"


def test_cell_without_a_run_says_so_and_has_no_figure(tmp_path: Path) -> None:
    empty = read_outcomes(_plan(tmp_path), tmp_path / "store")
    assert {line.reason for line in empty.lines} == {"not run yet"} and empty.runs == []
    for kind, spec in {
        "accuracy": {},
        "contrasts": {"ours": "ours", "against": ["worse"]},
        "metrics": {"metrics": {"kept": "assemble/kept"}},
        "auc": {},
        "optimum": {"rows": ["arm"], "level": "student"},
        "again": {"ours": "ours", "against": ["worse"]},
        "surface": {"ifd": [1.0], "r_ifd": [1.0]},
        "pilot": {"rows": ["student"], "level": "seed", "trained": "main", "arm": "ours"},
    }.items():
        made = _table(empty, kind=kind, **spec)
        cells = [cell for row in made.rows for cell in row]
        assert cells and not any(
            cell[:1].isdigit() or (cell[:1] in "+-" and cell[1:2].isdigit()) for cell in cells[1:]
        ), kind
        assert made.chart is None


LEVELS = PLAN.replace(
    'arms = ["ours", "worse", "same"]', 'arms = ["ours"]\nfactors = { level = [0, 1, 2, 3] }'
).replace('"seed={seed}"', '"seed={seed}", "level={level}"')


def test_optimum_tells_the_best_level_and_whether_it_is_inside(tmp_path: Path) -> None:
    plan = _plan(tmp_path, text=LEVELS)
    best = {"weak": 2, "strong": 3}

    def right(cell: Cell, split: str, item: int) -> float:
        return float(item < 16 - 4 * abs(int(cell.factors["level"]) - best[cell.factors["student"]]))

    write_runs(plan, tmp_path / "store", right)
    made = _table(read_outcomes(plan, tmp_path / "store"), kind="optimum", rows=["student"], level="level")
    weak, strong = made.rows
    assert weak[:4] == ["weak", "2", "100%", "100%"] and weak[4].startswith("2: +20.0 (")
    assert strong[:4] == ["strong", "3", "100%", "0%"] and strong[4].startswith("2: -20.0 (")
    assert weak[5].startswith("+20.0 (") and strong[5].startswith("+60.0 (") and made.heads[5] == "level 3 less 0"


def test_again_counts_cells_inside_what_the_first_seeds_predict(tmp_path: Path) -> None:
    more = '[[blocks]]\nname = "later"\narms = ["ours", "worse"]\nfactors = { seed = [7], student = ["weak"] }\n'
    plan = _plan(tmp_path, text=PLAN.replace("[phrases]", f"{more}[phrases]"))
    ahead = {"0": 4, "1": 5, "2": 6, "7": 5}

    def right(cell: Cell, split: str, item: int) -> float:
        return float(item < 8 + (ahead[cell.factors["seed"]] if cell.arm == "ours" else 0))

    write_runs(plan, tmp_path / "store", right)
    spec = {"kind": "again", "ours": "ours", "against": ["worse"], "columns": ["student"]}
    outcomes = read_outcomes(plan, tmp_path / "store")
    assert _table(outcomes, **spec, again="later").rows == [["worse", "+25.0", "+25.0", "yes", "1 of 1 (100%)"]]
    left_out = _table(outcomes, **spec).rows  # each of 3 seeds from 2 others, in 2 settings: wide intervals
    assert left_out == [["worse", "+25.0", "6 of 6 (100%)", "6 of 6 (100%)"]]
    ahead |= {"0": -1}
    odd_one = tmp_path / "odd one"
    write_runs(plan, odd_one, right)
    (row,) = _table(read_outcomes(plan, odd_one), **spec).rows
    assert row[2] == "4 of 6 (67%)"
    ahead |= {"0": 4}
    ahead["7"] = -8
    later = tmp_path / "later"
    write_runs(plan, later, right)
    outside = _table(read_outcomes(plan, later), **spec, again="later").rows
    assert outside == [["worse", "+25.0", "-40.0", "no", "0 of 1 (0%)"]]


def test_auc_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    worse, better = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 60).astype(float)
    expected = roc_auc_score([1] * 40 + [0] * 60, np.concatenate([worse, better]))
    assert auc(worse, better) == pytest.approx(expected)


def _scored(rows: int) -> pa.Table:
    """Originals with an IFD that knows every fault, a blind r-IFD, and no perplexity for the first row."""
    pairs = originals(rows, 3)
    bad = [fault(one.instruction, one.response) != "ok" for one in pairs]
    columns: dict[str, Any] = {
        "version": ["original"] * rows,
        "status": ["ok"] * rows,
        "instruction": [one.instruction for one in pairs],
        "response": [one.response for one in pairs],
        "ifd": [2.0 if one else 0.5 for one in bad],
        "r_ifd": [0.7] * rows,
        "perplexity": [None, *[1.0 if one else 3.0 for one in bad[1:]]],
        **dict.fromkeys(("s_ifd", "rank_surprisal", "confidence"), [1.0] * rows),
    }
    return pa.table(columns)


def test_aucs_of_a_score_that_sees_one_that_is_blind_and_one_that_errs(tmp_path: Path) -> None:
    table = _scored(150)
    found = aucs(table, "originals")
    faults = {name for _, name in found}
    assert faults == {"wrong_answer", "mismatched", "refusal", "ambiguous", "noisy"}
    assert {found["ifd", name].auc for name in faults} == {1.0}
    assert {found["r_ifd", name].auc for name in faults} == {0.5}
    assert {found["perplexity", name].auc for name in faults} == {0.0}
    labels = [one.label for one in originals(150, 3)]
    assert {name: found["ifd", name].faulty for name in faults} == {name: labels.count(name) for name in faults}
    assert aucs(table, "rewrites") == {}
    plan = _plan(tmp_path)
    write_runs(plan, tmp_path / "store", scores=lambda cell: table)
    made = _table(read_outcomes(plan, tmp_path / "store"), kind="auc", where={"arm": ["ours"]}, group="originals")
    assert made.rows[0][0] == "IFD" and set(made.rows[0][1:]) == {"1.00 (1.00 to 1.00)"}


def test_surface_keeps_what_the_papers_filters_keep(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    pairs = originals(40, 1)
    versions = ["original", "instruction", "response", "both"]

    def training(cell: Cell) -> list[dict[str, Any]]:
        return [
            {
                **{"instruction": one.instruction, "response": one.response, "version": versions[n % 4]},
                **{"ifd": 0.02 * n if n else math.nan, "r_ifd": 0.9},
            }
            for n, one in enumerate(pairs)
        ]

    write_runs(plan, tmp_path / "store", training=training)
    outcomes = read_outcomes(plan, tmp_path / "store")
    made = _table(outcomes, kind="surface", ifd=[0.4, 1000], r_ifd=[0.5, 1.0])
    for row, limit in zip(made.rows, (0.4, 1000), strict=True):
        kept = [one for n, one in enumerate(pairs) if n and n % 4 > 1 and 0.02 * n < limit]
        share = sum(one.label == "ok" for one in kept) / len(kept)
        assert row[1:] == ["0%", f"{len(kept) / 40:.0%}, {share:.2f}"]


TABLES = """
[[tables]]
kind = "accuracy"
title = "How | good"
blocks = ["main"]
figure = "good"
note = "A note."
"""


def test_table_command_fills_the_readme_and_again_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _plan(tmp_path, TABLES)
    write_runs(plan, tmp_path / "store", _right)
    readme = tmp_path / "README.md"
    readme.write_text("# Try\n\n<!-- results -->\nold\n<!-- /results -->\n\nVerdict: mine.\n")
    command = ["table", str(tmp_path), "--store", str(tmp_path / "store")]
    assert main(command) == 0
    filled = readme.read_text()
    assert "old" not in filled and filled.endswith("Verdict: mine.\n") and filled.count("**How | good**") == 1
    assert "18 of 18 runs, 18 different trainings. 18 minutes of one core; from 2026-11-21" in filled
    assert "| ours | 0.450 ± " in filled and "![How | good](good.svg)" in filled and "A note." in filled
    assert "<svg" in (tmp_path / "good.svg").read_text()
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 19
    assert json.loads((tmp_path / "results.json").read_text())["study"] == "try"
    assert main(command) == 0 and readme.read_text() == filled
    assert "| ours | 0.450 ± " in capsys.readouterr().out
    readme.write_text("# Try\n")
    assert main(command) == 2 and "has no marks <!-- results -->" in capsys.readouterr().err


def test_table_command_small_touches_nothing_of_the_studys(tmp_path: Path) -> None:
    _plan(tmp_path, "[small]\nfactors = { seed = [0] }\n" + TABLES)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results -->\n<!-- /results -->\n")
    assert main(["table", str(tmp_path), "--small", "--store", str(tmp_path / "store")]) == 0
    assert readme.read_text() == "<!-- results -->\n<!-- /results -->\n" and not (tmp_path / "results.csv").exists()


def test_tables_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the table kind pie is none of accuracy, contrasts"):
        made_tables(read_outcomes(_plan(tmp_path, TABLES.replace('"accuracy"', '"pie"')), tmp_path))
    with pytest.raises(UserError, match="is of the block other, which the study doesn't have"):
        made_tables(read_outcomes(_plan(tmp_path, TABLES.replace('["main"]', '["other"]')), tmp_path))


def test_outcomes_tell_code_that_changed_between_runs(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    write_runs(plan, tmp_path / "store", _right)
    for number, file in enumerate(sorted((tmp_path / "store/runs").glob("*/run.json"))):
        run = json.loads(file.read_text())
        run["config"] = {"trainer": {"class": "x.LoRA", "revision": 3 + (number == 5)}}
        file.write_text(json.dumps(run))
    outcomes = read_outcomes(plan, tmp_path / "store")
    assert outcomes.mixed_revisions == ["x.LoRA: 3, 4"]
    assert "Code changed between runs (x.LoRA: 3, 4): not comparable" in markdown(outcomes, [])
