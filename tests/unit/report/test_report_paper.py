"""The paper's tables, and own figures beside them."""

import hashlib
import json

import pytest

from srecycle.report.__main__ import main
from srecycle.report.comparison import entries
from srecycle.report.paper import REMARKS, paper_grids
from srecycle.report.paper_published import published
from tests.unit.report.paper_runs import (
    ALPACA,
    HARNESSED,
    LIMITS,
    WIZARDLM,
    config,
    lines_of,
    one,
    row,
    table,
)

DASH = "\N{EN DASH}"
HARNESS = "lm-eval 0.4.13, the paper's was older"
LEADERBOARD = {
    "train/rows": 37000,
    "source/rows": 52002,
    "evaluate/open_llm_v1/average": 0.55,
    "evaluate/open_llm_v1/arc_challenge/acc_norm": 0.5,
    "evaluate/open_llm_v1/arc_challenge/acc_norm_stderr": 0.014,
    "evaluate/open_llm_v1/hellaswag/acc_norm": 0.78,
    "evaluate/open_llm_v1/mmlu/acc_unweighted": 0.4669,
    "evaluate/open_llm_v1/truthfulqa_mc2/acc": 0.45,
}


def benchmarked(built, name="mine", metrics=LEADERBOARD, **changes):
    overrides = changes.pop("overrides", [])
    choices, status = changes.pop("choices", {}), changes.pop("status", "finished")
    return built.run(
        name, config=config(**changes), metrics=metrics, overrides=overrides, choices=choices, status=status
    )


def told(built, number=2, name="sRecycled Alpaca 7B"):
    return row(table(built, number), name, "own")[REMARKS].text.removeprefix("deviates: ")


def test_published_figures_are_the_paper_s(shared):
    reference = json.loads((shared / "reference" / "paper_tables.json").read_text())
    found = {int(key[5]): value for key, value in reference.items() if key.startswith("table")}
    assert [table["number"] for table in published()["tables"]] == sorted(found)
    for own in published()["tables"]:
        rows = found[own["number"]]["rows"]
        assert len(own["rows"]) == len(rows)
        for own_line, theirs in zip(own["rows"], rows, strict=True):
            assert set(own_line["values"]) <= set(theirs), (own["number"], own_line)
            assert len(own_line["values"]) == len(own["columns"])


def test_table_is_filled_with_the_difference(built):
    benchmarked(built)
    paper, own, difference = (
        row(table(built, 2), "sRecycled Alpaca 7B", whose) for whose in ("paper", "own", "difference")
    )
    assert (paper["ARC"].value, own["ARC"].value) == (54.01, pytest.approx(50))
    assert (own["ARC"].text, own["ARC"].stderr) == ("50.00 ± 1.40", pytest.approx(1.4))
    assert difference["ARC"].value == pytest.approx(-4.01)
    assert (difference["MMLU"].text, difference["rows trained on"].text) == ("+0.00", "-114")
    assert (own["whose"].text, own[REMARKS].text) == ("own: mine", f"deviates: {HARNESS}")
    assert (paper[REMARKS].text, difference["whose"].text) == ("", "difference")


@pytest.mark.parametrize(
    ("changes", "remark"),
    [
        ({"trainer": {"class": "x.LoRATrainer", "learning_rate": 2e-4}}, "LoRA; learning rate 0.0002"),
        ({"trainer": {"match": "steps", "epochs": None}}, "match steps"),
        ({"student": one("Student", path="org/tiny-1b", max_length=2048)}, "model: tiny-1b"),
        (
            {"student": one("Student", path="sha256:0", max_length=512), "overrides": ["student.path=/m/tiny"]},
            "model: tiny; cut at 512 tokens",
        ),
        (
            {"student": one("Student", path="meta-llama/Llama-2-7b-hf", max_length=2048, adapters=["a"])},
            "the model had been trained before",
        ),
        (
            {"template": one("PromptTemplate", user="{instruction}"), "choices": {"template": "plain"}},
            "template: plain",
        ),
        ({"teacher": one("OpenAITeacher", model="gpt-4.1")}, "teacher: gpt-4.1"),
        ({"teacher": one("ReplayTeacher", path="0")}, "teacher: recorded replies"),
        ({"teacher": one("ReplayTeacher", path="umd-zhou-lab/Reflect_Alpaca_All")}, ""),
        ({"keep": {**LIMITS, "ifd_max": one("IFDMax", below=0.9)}}, "keeps by IFDMax 0.9, ResponseReflectedOnly, Rev"),
        ({"keep": {"none": one("KeepAll")}}, "keeps by nothing"),
        ({"metrics": {**LEADERBOARD, "source/rows": 200}}, "200 of 52,002 rows"),
        ({"evaluator": {"open_llm_v1": {**HARNESSED, "limit": 50}}}, "50 items a task"),
        ({"evaluator": {"open_llm_v1": {**HARNESSED, "num_fewshot": 0}}}, "shots: 0"),
        ({"evaluator": {"open_llm_v1": {**HARNESSED, "metrics": {"hellaswag": "acc"}}}}, "average of hellaswag"),
        (
            {"selector": {"instruction": one("IFD", margin=0.1), "response": one("ReversedIFD", margin=0.0)}},
            "margin 0.1 on the instruction",
        ),
    ],
)
def test_settings_that_deviate_are_told(built, changes, remark):
    benchmarked(built, **changes)
    assert told(built).removesuffix(HARNESS).removesuffix("; ").startswith(remark)
    assert told(built) != HARNESS or remark == ""


@pytest.mark.parametrize(
    ("file", "path", "study", "rows", "filled"),
    [
        ("0", "/d/alpaca_subset.json", "", 3111, ["sRecycled Alpaca 7B"]),
        ("0", "/d/alpaca_evol_instruct_70k.json", "", 300, ["sRecycled WizardLM 7B"]),
        ("0", "", "[paper/table2,paper/with/alpaca]", 300, ["sRecycled Alpaca 7B"]),
        ("0", "", "paper/table2", 300, ["sRecycled WizardLM 7B"]),
        ("0", "/d/train-00000.parquet", "", 52002, ["sRecycled Alpaca 7B"]),
        ("0", "/d/train-00000.parquet", "paper/table2", 300, []),
        (WIZARDLM, "/d/alpaca.json", "", 70000, ["sRecycled WizardLM 7B"]),
    ],
)
def test_data_set_is_known_by_content_and_else_by_what_was_asked_for(built, file, path, study, rows, filled):
    overrides = [f"data.path={path}"] if path else []
    # A list of studies stands among the overrides alone: Hydra takes it for no choice.
    choices = {} if study.startswith("[") else {"experiment": study}
    overrides += [f"experiment={study}"] if study.startswith("[") else []
    metrics = {**LEADERBOARD, "source/rows": rows}
    benchmarked(built, file=file, overrides=overrides, choices=choices, metrics=metrics)
    assert lines_of(table(built, 2), "mine") == filled
    if filled and file == "0":
        assert "data: not the paper's file" in told(built, name=filled[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"instruction": "Never"},
        {"file": "0", "overrides": ["data.path=own.json"], "metrics": {**LEADERBOARD, "source/rows": 300}},
        {"student": one("Student", path="meta-llama/Llama-2-13b-hf", max_length=2048)},
        {"status": "failed"},
        {"metrics": {"train/rows": 1}},
        {"keep": {**LIMITS, "top": one("Top", fraction=0.1)}},
        {"assemble": one("Assembly", extra=one("Chat"), originals=0.0)},
        {"trainer": {"class": "x.NoTrainer"}},
    ],
)
def test_run_of_another_setting_fills_no_line(built, changes):
    benchmarked(built, **changes)
    grid = table(built, 2)
    assert {each[1].text for each in grid.rows} == {"paper"}
    assert grid.note == "No run of this store has figures for it."


@pytest.mark.parametrize(
    "changes",
    [
        {"config": config() | {"data": one("testbed.Testbed")}},
        {"config": config() | {"teacher": {"class": "srecycle.teacher.scripted.ScriptedTeacher"}}},
        {"choices": {"student": "testbed_weak"}},
        {"choices": {"template": "testbed"}},
        {"overrides": ["student.path=/a/srecycle/testbed/bases/weak"]},
    ],
)
def test_micro_world_run_stands_in_no_line_and_is_counted(built, changes):
    metrics = {**LEADERBOARD, "evaluate/pairs/wizardlm/win": 3}
    built.run("mine", **{"config": config(), "metrics": metrics, **changes})
    for grid in paper_grids(entries(built.runs)):
        assert lines_of(grid, "mine") == []
        assert "Runs on the micro-world (1) stand in no line" in grid.note


def test_line_without_a_run_says_so_and_which_command_makes_it(built):
    told = row(table(built, 1), "sRecycled WizardLM 13B")[REMARKS].text
    assert told == "not run: srecycle 'experiment=[paper/table1,paper/with/llama2_13b]'"
    benchmarked(built)
    grid = table(built, 2)
    assert row(grid, "sRecycled Alpaca 7B")[REMARKS].text == ""
    assert row(grid, "Alpaca 7B")[REMARKS].text.startswith("not run: srecycle ")
    assert row(table(built, 1), "GPT4")[REMARKS].text == ""


def test_published_model_is_known_by_its_id_and_trains_on_no_rows(built):
    student = one("Student", path="lmsys/vicuna-7b-v1.3", max_length=2048)
    trainer = {"class": "x.NoTrainer"}
    benchmarked(built, "vicuna", instruction="Never", response="Never", student=student, trainer=trainer)
    own, difference = (row(table(built, 2), "Vicuna 7B v1.3", whose) for whose in ("own", "difference"))
    assert (own["whose"].text, own[REMARKS].text) == ("own: vicuna", f"deviates: {HARNESS}")
    assert (own["rows trained on"].text, difference["whose"].text) == (DASH, "difference")
    assert lines_of(table(built, 2), "vicuna") == ["Vicuna 7B v1.3"]  # not the originals' line


@pytest.mark.parametrize(("number", "keep"), [(7, one("Top", fraction=0.1)), (8, one("RandomShare", fraction=0.1))])
def test_share_of_the_rows_fills_its_own_line(built, number, keep):
    benchmarked(built, "tenth", file=WIZARDLM, keep={**LIMITS, "share": keep})
    grid = table(built, number)
    assert lines_of(grid, "tenth") == ["10% (4,632 rows)"]
    assert row(grid, "10% (4,632 rows)", "own")["AlpacaEval, %"].text == DASH
    assert lines_of(table(built, 15 - number), "tenth") == []


def test_all_of_the_rows_by_a_share_are_the_whole_line(built):
    benchmarked(built, "all", file=WIZARDLM, keep={**LIMITS, "top": one("Top", fraction=1.0)})
    assert lines_of(table(built, 7), "all") == ["100% (46,325 rows)"]
    assert "keeps" not in told(built, 7, "100% (46,325 rows)")


def test_mt_bench_stands_beside_table_5(built):
    judge = {"teacher": {"model": "gpt-4-0613"}}
    metrics = {f"evaluate/mt/{name}/score": value for name, value in (("turn_1", 6.6), ("turn_2", 4.5))}
    metrics |= {"evaluate/mt/overall/score": 5.55, "evaluate/mt/overall/score_stderr": 0.2}
    metrics |= {"evaluate/mt/overall/asked": 160, "evaluate/mt/overall/judged": 158, "source/rows": 70000}
    evaluator = {"mt": one("MTBench", judge=judge)}
    benchmarked(built, file=WIZARDLM, evaluator=evaluator, metrics=metrics)
    extra = one("Assembly", extra=one("Chat"), originals=0.0)
    benchmarked(built, "vicuna", file=WIZARDLM, evaluator=evaluator, metrics=metrics, assemble=extra)
    own, difference = (row(table(built, 5), "sRecycled WizardLM 7B", whose) for whose in ("own", "difference"))
    assert (own["turn 1"].value, difference["turn 2"].text) == (6.6, "-0.088")
    assert (own["overall"].text, own["whose"].text) == ("5.550 ± 0.200", "own: mine")
    assert own[REMARKS].text == "deviates: 158 of 160 judged"
    assert lines_of(table(built, 5), "vicuna") == ["sRecycled WizardLM + Vicuna 7B"]


@pytest.mark.parametrize(
    ("evaluator", "counts", "remark"),
    [
        ({"judge": {"teacher": {"model": "gpt-4"}}}, (805, 805), "as in the paper"),
        ({"judge": {"teacher": {"model": "gpt-4.1"}}}, (805, 805), "judge: gpt-4.1"),
        ({"judge": {"teacher": {"model": {"path": "org/judge"}}}}, (805, 805), "judge: org/judge"),
        ({"judge": {"class": "x.ReplayJudge"}}, (805, 805), "judge: recorded reviews"),
        ({"judge": None, "annotations": "0"}, (805, 805), "judge: recorded annotations"),
        (
            {"judge": {"teacher": {"model": "gpt-4"}}, "model_outputs": "0"},
            (805, 803),
            "outputs that were made elsewhere; 803 of 805 judged",
        ),
        ({"judge": {"teacher": {"model": "gpt-4"}}}, (40, 40), "40 of 805 prompts"),
    ],
)
def test_judged_figures_tell_judge_and_items(built, evaluator, counts, remark):
    metrics = {"evaluate/ae/v1/win_rate": 70.0, "source/rows": 52002}
    metrics |= dict(zip(("evaluate/ae/v1/asked", "evaluate/ae/v1/judged"), counts, strict=True))
    benchmarked(built, evaluator={"ae": one("AlpacaEval", **evaluator)}, metrics=metrics)
    assert told(built, 1) == remark


def compared(built, *, other="Never", other_file=WIZARDLM, prompts=("wizardlm", 218), against=b"answers"):
    """A run of the selective arm that was compared with another one; its answers tell who that was."""
    folder = built.store.folder("evaluate", "k1")
    folder.mkdir(parents=True)
    (folder / "answers.parquet").write_bytes(b"answers")
    built.run("other", config=config(other, other, file=other_file), key="k1")
    name, count = prompts
    judge = {"teacher": {"model": "gpt-4"}}
    pairwise = one("Pairwise", against=hashlib.sha256(against).hexdigest(), judge=judge)
    values = {"win": 150, "tie": 30, "lose": count - 180, "win_rate": 1.5, "asked": count, "judged": count}
    metrics = {f"evaluate/pairs/{name}/{metric}": value for metric, value in values.items()}
    metrics["source/rows"] = 70000
    return benchmarked(built, file=WIZARDLM, evaluator={"pairs": pairwise}, metrics=metrics)


def test_pairs_are_known_by_whose_answers_they_were_against(built):
    compared(built)
    grid = table(built, 4)
    found = row(grid, "against Original WizardLM", "difference")
    assert (found["tie"].text, found["win rate"].text) == ("-10", "-0.060")
    assert told(built, 4, "against Original WizardLM") == "as in the paper"
    assert lines_of(grid, "mine") == ["against Original WizardLM"]
    assert lines_of(table(built, 9), "mine") == []


@pytest.mark.parametrize("changes", [{"against": b"somebody"}, {"other_file": ALPACA}, {"other": "Random"}])
def test_pairs_against_others_fill_no_line_of_that_arm(built, changes):
    compared(built, **changes)
    assert "against Original WizardLM" not in lines_of(table(built, 4), "mine")


def test_pairs_of_other_prompts_are_told_and_their_counts_have_no_difference(built):
    compared(built, prompts=("vicuna", 80))
    own, difference = (row(table(built, 4), "against Original WizardLM", whose) for whose in ("own", "difference"))
    assert own[REMARKS].text == "deviates: 80 of 218 prompts"
    assert (own["win"].text, difference["win"].text, difference["win rate"].text) == ("150", DASH, "-0.060")


def test_run_that_found_the_same_results_is_no_line_of_its_own(built):
    stages = [{"label": "evaluate/open_llm_v1", "stage": "evaluate", "key": "e1", "how": "run", "seconds": 1.0}]
    for name, key in (("first", "e1"), ("again", "e1"), ("other", "e2")):
        built.run(name, config=config(), metrics=LEADERBOARD, stages=[{**stages[0], "key": key}])
    names = [each[1].text for each in table(built, 2).rows if each[1].text.startswith("own")]
    assert names in (["own: first", "own: other"], ["own: again", "own: other"])


def test_run_of_many_settings_is_named_by_when_it_began(built):
    benchmarked(built, overrides=[f"trainer.seed={'1' * 60}"])
    benchmarked(built, overrides=["trainer.seed=2"])
    named = row(table(built, 2), "sRecycled Alpaca 7B", "own")["whose"]
    assert named.text == "own: mine (20260214-101112)" and "1" * 60 in named.about


def test_figures_of_another_model_are_called_so(built):
    benchmarked(built, student=one("Student", path="org/tiny-1b", max_length=2048))
    assert row(table(built, 2), "sRecycled Alpaca 7B", "difference")["whose"].text == "difference, another model"


def test_command_paper_sets_the_runs_beside_it(built):
    benchmarked(built)
    out = built.store.root / "report.html"
    assert main(["--store", str(built.store.root), "--paper"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "Beside the paper" in text and "arXiv:2402.10110" in text and "-4.01" in text
    assert "srecycle experiment=paper/table2" in text
    assert main(["--store", str(built.store.root)]) == 0
    assert "Beside the paper" not in out.read_text(encoding="utf-8")
