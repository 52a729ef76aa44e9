"""Rounds: each begins with what the last one trained, is a run of its own, and is found again."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srecycle.compose import build
from srecycle.errors import UserError
from srecycle.evaluator.drift import Drift
from srecycle.experiment import Experiment
from srecycle.report.runs import Run, read_run
from srecycle.runner import planned, rounds, run_rounds
from srecycle.student import Student
from srecycle.teacher.several import SeveralTeachers
from srecycle.teacher.transformers import TransformersTeacher
from srecycle.trainer import NoTrainer
from tests.conftest import ROOT

SMALL = (
    "data.count=12",
    "rounds=3",
    "trainer.max_steps=2",
    "trainer.batch_size=2",
    "trainer.device_batch=2",
    "trainer.learning_rate=0.02",
    "evaluator=[drift,drift_first,collapse]",
    "evaluator.collapse.max_new_tokens=8",
    "keep=[none]",
    "tracker=jsonl",
    "name=small",
)


def _experiment(*overrides: str) -> Experiment:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        _, experiment = build(compose("config", [*SMALL, *overrides]))
    assert isinstance(experiment, Experiment)
    world = replace(experiment.data, count=8, world_seed=9)
    held_out = {name: replace(one, held_out=world, rows=8) for name, one in experiment.evaluator.items()}  # type: ignore[type-var]
    return replace(experiment, evaluator=held_out)


@pytest.fixture
def trained(tiny_models: Mapping[str, Path], tmp_path: Path) -> Path:
    """Return a training's artifact, as far as its adapter is asked for its digest."""
    folder = tmp_path / "trained"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    (folder / "adapter" / "adapter_model.safetensors").write_text("weights")
    return folder


def _keys(experiment: Experiment) -> dict[str, str]:
    return {label: stage.key for label, stage in experiment.plan().items()}


def test_in_round_changes_what_the_student_has_a_part_in(trained: Path, tmp_path: Path) -> None:
    experiment = _experiment()
    first, second = experiment.in_round([]), experiment.in_round([trained])
    assert _keys(first) == _keys(experiment)
    assert (first.name, second.name, {first.group, second.group}) == ("small round 1", "small round 2", {"small"})
    before, after = _keys(first), _keys(second)
    same = {label for label in before if before[label] == after[label]}
    assert same == {"source", "reflect_instruction", "reflect_response"}
    assert second.student.adapters == (str(trained / "adapter"),)
    shutil.copytree(trained, tmp_path / "copy")
    assert _keys(experiment.in_round([tmp_path / "copy"])) == after
    third = experiment.in_round([trained, tmp_path / "copy"])
    assert third.student.adapters == (str(trained / "adapter"), str(tmp_path / "copy" / "adapter"))
    assert experiment.in_round([trained]).group == "small" and replace(experiment, group="g").in_round([]).group == "g"


def test_in_round_compares_with_the_very_first_student(trained: Path) -> None:
    second = _experiment().in_round([trained])
    first, last = second.evaluator["drift_first"], second.evaluator["drift"]
    assert isinstance(first, Drift) and first.before is not None and first.before.adapters == ()
    assert isinstance(last, Drift) and last.before is None


def test_in_round_teacher_that_is_the_student_becomes_the_new_one(
    trained: Path, tiny_models: Mapping[str, Path]
) -> None:
    experiment = _experiment("teacher=self")
    teacher: Any = experiment.teacher
    itself: Any = experiment.in_round([trained]).teacher
    assert itself == replace(teacher, model=replace(teacher.model, adapters=(str(trained / "adapter"),)))
    shorter = replace(experiment, teacher=replace(teacher, model=replace(teacher.model, max_length=100)))
    itself = shorter.in_round([trained]).teacher
    assert itself.model.adapters == (str(trained / "adapter"),) and itself.model.max_length == 100
    other = TransformersTeacher(model=Student(path=str(tiny_models["llama"])))
    teachers = {"self": experiment.teacher, "other": other}
    both: Any = replace(experiment, teacher=SeveralTeachers(teachers=teachers)).in_round([trained]).teacher
    assert both.teachers["self"].model.adapters == (str(trained / "adapter"),)
    assert both.teachers["other"] == other
    assert replace(experiment, teacher=other).in_round([trained]).teacher is other


@pytest.mark.parametrize("fields", [{"trainer": NoTrainer()}, {"until": "assemble"}])
def test_rounds_that_train_nothing_are_refused(fields: dict[str, Any]) -> None:
    experiment = replace(_experiment(), **fields)
    with pytest.raises(UserError, match="rounds=3 wants a student trained in each: choose a trainer, and no until"):
        list(rounds(experiment))
    assert len(list(rounds(replace(experiment, rounds=1)))) == 1


def _ran(folders: list[Path]) -> list[Run]:
    return [read_run(folder) for folder in folders]


def test_rounds_run_in_turn_and_are_found_again(tmp_path: Path) -> None:
    experiment = _experiment()
    assert [one.name for one in rounds(experiment)] == ["small round 1"], "the rest depends on what it trains"
    runs = _ran(run_rounds(experiment, {"student": "weak"}, []))
    assert [(run.name, run.group) for run in runs] == [(f"small round {number}", "small") for number in (1, 2, 3)]
    assert [run.choices for run in runs] == [{"student": "weak", "round": number} for number in "123"]
    for number, run in enumerate(runs):
        made = {str(stage["label"]) for stage in run.stages if stage["how"] == "run"}
        assert ("train" in made, "likelihoods" in made, "source" in made) == (True, True, number == 0)
        drift, since_first = (run.metrics[f"evaluate/{name}/kl_after_before/mean"] for name in ("drift", "drift_first"))
        assert drift > 0 and (drift == since_first) == (number == 0)
        assert run.metrics["evaluate/collapse/rows"] == 8
    folder = runs[2].artifact("train")
    assert folder is not None
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert len(config["srecycle_adapter"].split()) == 2
    again = _ran(run_rounds(experiment, {}, []))
    assert {stage["how"] for run in again for stage in run.stages} == {"hit"}
    assert [run.metrics for run in again] == [
        run.metrics | {"cost/usd_paid": 0.0, "cost/calls_paid": 0} for run in runs
    ]
    assert {stage.how for one in rounds(experiment) for stage in planned(one)} == {"hit"}
    longer = list(rounds(replace(experiment, rounds=5)))
    assert [one.name for one in longer][-1] == "small round 4" and len(longer) == 4
