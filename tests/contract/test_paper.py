"""The paper's tables as studies: each composes, builds and plans, with stand-ins for files and models."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir

from srecycle.compose import PACKAGE, build, config_folder
from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.experiment import Experiment
from srecycle.report.paper_command import command
from srecycle.report.paper_published import published, setting
from srecycle.rows import PHASES
from srecycle.runner import PlannedStage, planned
from tests.contract.source import ROOT

FOLDER = ROOT / "experiments" / "paper"
TABLES = ("table1", "table2", "table4", "table5", "table6", "table7", "table8", "table9", "answers", "settings")
ROWS = [{"instruction": "Name a colour.", "output": "Red."}, {"instruction": "Count to two.", "output": "One, two."}]
STUDENT = f"student.path={PACKAGE / 'testbed/bases/weak'}"
EVALUATIONS = {
    "table1": ["alpaca_eval"],
    "table2": ["open_llm_v1"],
    "table4": ["pairwise"],
    "table5": ["mt_bench"],
    "table7": ["open_llm_v1", "alpaca_eval"],
    "table8": ["open_llm_v1", "alpaca_eval"],
    "table9": ["pairwise"],
    "answers": ["answers"],
}
ASKED = {"table1": 2, "table4": 2, "table5": 2, "table7": 2, "table8": 2, "table9": 10}
"""Requests to the judge for the stand-ins below: a prompt a set, judged once, or in both orders."""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in for what the studies look for in $SRECYCLE_PAPER."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setenv("SRECYCLE_PAPER", str(folder))

    def write(name: str, *records: dict[str, Any]) -> None:
        text = json.dumps(records) if name.endswith(".json") else "\n".join(map(json.dumps, records))
        (folder / name).write_text(text)

    for one in setting()["data"].values():
        write(one["file"], *ROWS)
    write("text_davinci_003_outputs.json", *({**row, "generator": "text_davinci_003"} for row in ROWS))
    for name, column in (
        ("wizardlm", "Instruction"),
        ("vicuna", "text"),
        ("koala", "prompt"),
        ("lima", "conversations"),
    ):
        write(f"{name}_test_set.jsonl", {column: f"What is {name}?"})
    write("sinstruct_test_set.jsonl", {"instruction": "Add.", "instances": [{"input": "1 2"}]})
    write("question.jsonl", {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And 1 more?"]})
    write("reference_answer_gpt-4.jsonl", {"question_id": 1, "choices": [{"turns": ["2", "3"]}]})
    write("sharegpt.json", {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]})
    asked = [{"instruction": f"What is {name}?"} for name in ("wizardlm", "vicuna", "koala", "lima")]
    others = [*asked, {"instruction": "Add.", "input": "1 2"}]
    write("others.json", *({**one, "output": "An answer."} for one in others))
    for table in ("origin", "reflect_instruction", "reflect_response", "reflect_both"):
        write(f"{table}.jsonl", *({"data": row} for row in ROWS))
    with initialize_config_dir(config_dir=str(config_folder()), version_base="1.3"):
        yield folder


def built(studies: list[str], files: Path, *overrides: str) -> Experiment:
    against = [f"evaluator.pairwise.against={files / 'others.json'}"] if {"table4", "table9"} & {*studies} else []
    chosen = f"experiment=[{','.join(f'paper/{name}' for name in studies)}]"
    mode, experiment = build(compose("config", [chosen, STUDENT, *against, *overrides]))
    assert mode == "run" and isinstance(experiment, Experiment)
    return experiment


def plan(studies: list[str], files: Path, *overrides: str) -> dict[str, PlannedStage]:
    return {one.label: one for one in planned(built(studies, files, *overrides))}


def test_every_file_is_tried_here() -> None:
    arms = {one["study"] for one in published()["arms"].values()}
    tops = {file.stem for file in FOLDER.glob("*.yaml")}
    assert tops == {*TABLES, *arms - {""}, "table4_selective"}
    assert {file.stem for file in (FOLDER / "with").glob("*.yaml")} == {*BESIDE}
    assert {file.stem for file in (FOLDER / "teacher").glob("*.yaml")} == {"chatgpt", "released", "own"}


@pytest.mark.parametrize("name", TABLES)
def test_study_has_the_papers_setting_and_plans_by_its_own_name(name: str, files: Path) -> None:
    experiment: Any = built([name], files)
    assert (experiment.student.max_length, experiment.student.dtype) == (setting()["max_length"], "bfloat16")
    assert experiment.template.user == setting()["template"]
    assert experiment.teacher.model == setting()["teacher"]
    assert set(experiment.keep) >= {"ifd_max", "rifd_max", "response_reflected_only"}
    if name != "table6":
        tuned = identity(experiment.trainer)
        assert {key: tuned[key] for key in setting()["training"]["7b"]} == setting()["training"]["7b"]

    found = {one.label: one for one in planned(experiment)}

    assert {one.how for one in found.values()} == {"run"} and next(iter(found)) == "source"
    evaluated = [label.removeprefix("evaluate/") for label in found if label.startswith("evaluate/")]
    assert evaluated == EVALUATIONS.get(name, ["none"])
    taught = [found[f"reflect_{phase}"].quote for phase in ("instruction", "response")]
    assert [one and one.calls for one in taught] == [2, 4]
    judged = [one.quote for label, one in found.items() if label.startswith("evaluate/") and one.quote]
    assert [one.calls for one in judged] == ([ASKED[name]] if name in ASKED else [])
    # 30 and 60 dollars a million, at 500 tokens a reply.
    assert all(one.usd == pytest.approx(one.input_tokens * 30e-6 + one.calls * 0.03) for one in judged)


def test_student_is_llama_2_at_a_commit() -> None:
    for size, name in (("7b", "settings"), ("13b", "with/llama2_13b")):
        student = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["student"]
        assert setting()["students"][size] in student["path"].lower() and len(student["hub_revision"]) == 40


BESIDE = {
    "alpaca": "table1",
    "llama2_13b": "table1",
    "released": "table7",
    "own_teacher": "table1",
    "vicuna": "table5",
    "no_training": "table2",
}


@pytest.mark.parametrize(("name", "table"), BESIDE.items())
def test_what_stands_beside_a_table_composes_builds_and_plans(name: str, table: str, files: Path) -> None:
    more = {"released": [f"teacher.path={files}"], "own_teacher": ["teacher=scripted"]}
    found = plan([table, f"with/{name}"], files, *more.get(name, []))
    assert ("extra" in found) == (name == "vicuna")
    assert ("reflect_instruction" in found) == (name != "no_training")
    if name == "released":
        quote = found["reflect_response"].quote
        assert quote and (quote.requests, quote.calls) == (4, 0)


def test_beside_a_table_the_other_data_set_and_student_are_taken(files: Path) -> None:
    config = compose("config", ["experiment=[paper/table7,paper/with/llama2_13b,paper/with/alpaca]"])
    assert Path(config.data.path) == files / "alpaca_data.json" and "top" in config.keep
    assert setting()["students"]["13b"] in config.student.path.lower()
    tuned = setting()["training"]["13b"]
    assert {key: config.trainer[key] for key in tuned} == tuned


@pytest.mark.parametrize("arm", published()["arms"])
def test_arm_is_the_one_that_the_report_knows(arm: str) -> None:
    known = published()["arms"][arm]
    study = yaml.safe_load((FOLDER / f"{known['study'] or 'table4_selective'}.yaml").read_text())
    chosen = {key.removeprefix("override /"): value for one in study["defaults"] for key, value in one.items()}
    selectors = [_component("selector", chosen[f"selector@selector.{phase}"]) for phase in PHASES]
    assert [name for name, _ in selectors] == known["selectors"]
    filters = [_component("keep", name) for name in chosen["keep"] if name != "none"]
    assert [name if below is None else f"{name} {below:g}" for name, below in filters] == known["keep"]
    assert study["name"] == known["name"]


def _component(group: str, name: str) -> tuple[str, float | None]:
    """Return the class of a configuration, and its limit where it has one."""
    content = yaml.safe_load((config_folder() / group / f"{name}.yaml").read_text())
    return content["_target_"].rpartition(".")[2], content.get("below")


COMMANDS = {
    table["number"]: [told for line in table["rows"] if (told := command(table, line))]
    for table in published()["tables"]
}


def test_commands_name_studies_that_there_are() -> None:
    for told in (one for several in COMMANDS.values() for one in several):
        for word in shlex.split(told):
            for study in word.removeprefix("experiment=").strip("[]").split(",") if "experiment=" in word else ():
                assert (FOLDER.parent / f"{study}.yaml").is_file(), told
            # The arm is found by the name that its own study gives it.
            if word.startswith("evaluator.pairwise.against="):
                assert word.partition("=")[2] in {one["name"] for one in published()["arms"].values()}


@pytest.mark.parametrize("number", [1, 4, 7, 8])
def test_command_of_a_line_builds(number: int, files: Path) -> None:
    for part in COMMANDS[number][-1].split(" && "):
        name, *overrides = shlex.split(part)
        compared = [f"evaluator.pairwise.against={files / 'others.json'}"] if "against" in part else []
        _, experiment = build(compose("config", [*overrides, STUDENT, *compared]))
        assert name == "srecycle" and "train" in experiment.plan()


def test_missing_file_is_named(files: Path) -> None:
    (files / "alpaca_evol_instruct_70k.json").unlink()
    with pytest.raises(UserError, match=r"alpaca_evol_instruct_70k\.json can't be read: No such file"):
        plan(["table1"], files)
