"""The paper's tables, and own figures beside them."""

import hashlib
import json

import pytest

from srecycle.report.__main__ import main
from srecycle.report.comparison import entries
from srecycle.report.paper import paper_grids, published

DASH = "\N{EN DASH}"
LLAMA = ["student.path=meta-llama/Llama-2-7b-hf", "data.path=data/alpaca_data.json"]
LEADERBOARD = {
    f"evaluate/open_llm_v1/{name}": value
    for name, value in {
        "average": 0.55,
        "arc_challenge/acc_norm": 0.5,
        "hellaswag/acc_norm": 0.78,
        "mmlu/acc_unweighted": 0.4669,
        "truthfulqa_mc2/acc": 0.45,
    }.items()
}


def config(instruction="IFD", response="ReversedIFD", trainer="FullTrainer", **more):
    selector = {"instruction": {"class": f"x.{instruction}"}, "response": {"class": f"x.{response}"}}
    return {"selector": selector, "trainer": {"class": f"x.{trainer}"}, "student": {"path": "sha256:1"}, **more}


def lm_eval(**changes):
    return {"evaluator": {"open_llm_v1": {"class": "srecycle.evaluator.lm_eval.LMEval", "limit": None, **changes}}}


def table(built, number):
    (grid,) = (one for one in paper_grids(entries(built.runs)) if one.name == f"paper-table-{number}")
    return grid


def line(grid, name):
    (found,) = (row for row in grid.rows if row[0].text == name)
    return dict(zip(grid.heads, found, strict=True))


def test_published_figures_are_the_paper_s(shared):
    reference = json.loads((shared / "reference" / "paper_tables.json").read_text())
    keys = ("1_alpacaeval", "2_open_llm_leaderboard", "4_pairwise_wizardlm_test_218", "5_mt_bench")
    keys += ("7_fewer_data_wizardlm_7b", "8_random_subset_wizardlm_7b", "9_pairwise_1030")
    assert [table["number"] for table in published()["tables"]] == [int(key[0]) for key in keys]
    for own, key in zip(published()["tables"], keys, strict=True):
        rows = reference[f"table{key}"]["rows"]
        assert len(own["rows"]) == len(rows)
        for one, row in zip(own["rows"], rows, strict=True):
            assert set(one["values"]) <= set(row), (key, one)
            assert len(one["values"]) == len(own["columns"])


def test_table_is_filled_with_the_difference(built):
    built.run("mine", config=config(**lm_eval()), overrides=LLAMA, metrics=LEADERBOARD)
    found = line(table(built, 2), "sRecycled Alpaca 7B")
    assert (found["ARC"].value, found["ARC, own"].value) == (54.01, pytest.approx(50))
    assert found["ARC, difference"].value == pytest.approx(-4.01)
    assert found["MMLU, difference"].text == "+0.00"
    assert (found["own run"].text, found["settings that deviate"].text) == ("mine", "none")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"config": config(trainer="LoRATrainer", **lm_eval())}, "LoRA"),
        ({"config": config(**lm_eval(limit=50))}, "50 items a task"),
        ({"overrides": ["student.path=org/tiny-1b", LLAMA[1]]}, "model: tiny-1b"),
    ],
)
def test_settings_that_deviate_are_told(built, changes, told):
    built.run("mine", **{"config": config(**lm_eval()), "overrides": LLAMA, "metrics": LEADERBOARD, **changes})
    assert line(table(built, 2), "sRecycled Alpaca 7B")["settings that deviate"].text == told


@pytest.mark.parametrize(
    "changes",
    [
        {"config": config(instruction="Never", **lm_eval())},
        {"overrides": [LLAMA[0], "data.path=data/own.json"]},
        {"overrides": ["student.path=meta-llama/Llama-2-13b-hf", LLAMA[1]]},
        {"status": "failed"},
        {"metrics": {}},
        {"config": config(keep={"top": {"class": "x.Top", "fraction": 0.1}}, **lm_eval())},
    ],
)
def test_run_of_another_setting_fills_no_line(built, changes):
    built.run("mine", **{"config": config(**lm_eval()), "overrides": LLAMA, "metrics": LEADERBOARD, **changes})
    grid = table(built, 2)
    assert "own run" not in grid.heads
    assert grid.note == "No run of this store has figures for it."


def test_shares_of_rows_fill_their_own_line(built):
    keep = {"top": {"class": "x.Top", "fraction": 0.1}}
    overrides = [LLAMA[0], "data.path=data/WizardLM_70k.json"]
    built.run("tenth", config=config(keep=keep, **lm_eval()), overrides=overrides, metrics=LEADERBOARD)
    grid = table(built, 7)
    assert line(grid, "10% (4,632 rows)")["own run"].text == "tenth"
    assert line(grid, "5% (2,316 rows)")["own run"].text == DASH
    assert line(grid, "10% (4,632 rows)")["AlpacaEval, %, own"].text == DASH
    assert "own run" not in table(built, 8).heads


def judged(built, model):
    """A run of the selective arm that was compared with one of the original arm; answers tell who the other was."""
    built.run("other", config=config("Never", "Never"), key="k1")
    folder = built.store.folder("evaluate", "k1")
    folder.mkdir(parents=True)
    (folder / "answers.parquet").write_bytes(b"answers")
    digest = hashlib.sha256(b"answers").hexdigest()
    pairwise = {"class": "x.Pairwise", "against": digest, "judge": {"teacher": {"model": model}}}
    metrics = {f"evaluate/pairs/{name}": value for name, value in (("wizardlm/win", 150), ("wizardlm/win_rate", 1.5))}
    return built.run("mine", config=config(evaluator={"pairs": pairwise}), overrides=LLAMA, metrics=metrics)


def test_pairs_are_known_by_whose_answers_they_were_against(built):
    judged(built, "gpt-4-0613")
    grid = table(built, 4)
    found = line(grid, "against Original WizardLM")
    assert (found["win, difference"].text, found["win rate, difference"].text) == ("+0", "-0.060")
    assert found["settings that deviate"].text == "data: another set"
    assert line(grid, "against Select by Randomness")["own run"].text == DASH
    assert "own run" not in table(built, 9).heads


def test_pairs_of_another_judge_are_labelled(built):
    judged(built, "some-judge")
    said = line(table(built, 4), "against Original WizardLM")["settings that deviate"].text
    assert said == "data: another set; judge: some-judge"


def test_command_paper_sets_the_runs_beside_it(built):
    built.run("mine", config=config(**lm_eval()), overrides=LLAMA, metrics=LEADERBOARD)
    out = built.store.root / "report.html"
    assert main(["--store", str(built.store.root), "--paper"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Beside the paper" in text and "arXiv:2402.10110" in text and "-4.01" in text
    assert main(["--store", str(built.store.root)]) == 0
    assert "Beside the paper" not in out.read_text(encoding="utf-8")
