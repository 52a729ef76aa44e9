"""The plan, and running it: what is made, what is told, and what is left when something stops."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from srecycle.assemble import Assembly
from srecycle.data.testbed import Testbed as World
from srecycle.embedder.student import StudentEmbedder
from srecycle.engine.local import LocalEngine
from srecycle.errors import UserError
from srecycle.evaluator.base import NoEvaluator
from srecycle.experiment import Experiment
from srecycle.keep.limit import IFDMax
from srecycle.keep.none import KeepAll
from srecycle.reflection import Reflect, Reflection
from srecycle.runner import planned, run
from srecycle.scorer import Scorer
from srecycle.selector.always import Always
from srecycle.selector.ifd import IFD
from srecycle.selector.never import Never
from srecycle.selector.random import Random
from srecycle.selector.reversed_ifd import ReversedIFD
from srecycle.store import Store
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.teacher.openai import OpenAITeacher
from srecycle.teacher.scripted import ScriptedTeacher
from srecycle.tracker.jsonl import JsonlTracker
from srecycle.trainer import NoTrainer, Train
from srecycle.trainer.dpo import DPOTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.preferences import Preferences
from srecycle.trainer.sft_dpo import SFTThenDPOTrainer

PAPER = {"instruction": IFD(), "response": ReversedIFD()}
NEVER = {"instruction": Never(), "response": Never()}
ALL = {"instruction": Always(), "response": Always()}
SCORED = ["source", "reflect_instruction", "reflect_response", "likelihoods", "scores"]
END = ["select_instruction", "select_response", "assemble", "train", "evaluate/none"]


def _wording(scope: Any = "all") -> Reflection:
    return Reflection(
        system="",
        instruction_request="{instruction}{response}",
        response_request="{instruction}{response}",
        input_block="",
        history_block="",
        instruction_criteria=(),
        response_criteria=(),
        scope=scope,
    )


@pytest.fixture
def parts(tmp_path: Path, tiny_models: Mapping[str, Path]) -> dict[str, Any]:
    """Return the fields of an experiment that selects as the paper does, and trains nothing."""
    return {
        "data": World(count=6, mix={"ok": 1.0}),
        "reflection": _wording(),
        "teacher": ScriptedTeacher(),
        "student": Student(path=str(tiny_models["llama"]), device="cpu", threads=1),
        "template": PromptTemplate(user="{instruction}:", user_with_input="{instruction}{input}:"),
        "scorer": Scorer(reversed_request="{response}"),
        "selector": PAPER,
        "embedder": StudentEmbedder(),
        "keep": {"none": KeepAll()},
        "assemble": Assembly(),
        "trainer": NoTrainer(),
        "evaluator": {"none": NoEvaluator()},
        "engine": LocalEngine(shard_rows=2),
        "tracker": JsonlTracker(),
        "store": tmp_path / "store",
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [*SCORED, *END]),
        ({"selector": NEVER}, ["source", *END]),
        ({"selector": NEVER, "keep": {"ifd": IFDMax()}}, ["source", "likelihoods", "scores", *END]),
        ({"selector": ALL}, ["source", "reflect_instruction", "reflect_response", *END]),
        (
            {"reflection": _wording("chosen")},
            [
                "source",
                "reflect_instruction",
                "likelihoods",
                "select_instruction",
                "reflect_response",
                "likelihoods_response",
                "scores",
                *END[1:],
            ],
        ),
        ({"reflection": _wording("chosen"), "selector": NEVER}, ["source", *END]),
        (
            {"reflection": _wording("chosen"), "selector": {**NEVER, "response": Random()}},
            ["source", "select_instruction", "reflect_response", *END[1:]],
        ),
    ],
    ids=["paper", "original", "original filtered", "both", "chosen", "chosen original", "chosen response"],
)
def test_plan_lists_the_stages_that_are_needed(
    parts: dict[str, Any], fields: dict[str, Any], expected: list[str]
) -> None:
    plan = Experiment(**(parts | fields)).plan()
    assert list(plan) == expected
    stages = list(plan.values())
    for place, stage in enumerate(stages):
        assert all(one in stages[:place] for one in stage.inputs)


@pytest.mark.parametrize(
    ("fields", "until", "expected"),
    [
        ({}, "scores", SCORED),
        ({}, "select_instruction", [*SCORED, "select_instruction"]),
        ({}, "assemble", [*SCORED, *END[:3]]),
        ({}, "evaluate/none", [*SCORED, *END]),
        ({"selector": NEVER}, "scores", ["source", "likelihoods", "scores"]),
        ({"selector": NEVER}, "likelihoods", ["source", "likelihoods"]),
        ({"selector": NEVER}, "assemble", ["source", *END[:3]]),
        ({"selector": NEVER, "reflection": _wording("chosen")}, "scores", None),
        ({"reflection": _wording("chosen")}, "select_instruction", ["source", "reflect_instruction", "likelihoods"]),
    ],
)
def test_plan_until_a_stage_ends_with_it(
    parts: dict[str, Any], fields: dict[str, Any], until: str, expected: list[str] | None
) -> None:
    whole = Experiment(**(parts | fields)).plan()
    plan = Experiment(**(parts | fields | {"until": until})).plan()
    assert list(plan)[-1] == until
    if expected is not None:
        assert [name for name in plan if name != until] == [name for name in expected if name != until]
    if until in whole:
        assert all(plan[name].key == whole[name].key for name in plan if name in whole)
    for place, stage in enumerate(plan.values()):
        assert all(one in list(plan.values())[:place] for one in stage.inputs)


@pytest.mark.parametrize("scope", ["all", "chosen"])
def test_plan_has_preferences_only_where_the_trainer_learns_from_pairs(parts: dict[str, Any], scope: Any) -> None:
    parts |= {"reflection": _wording(scope)}
    first, pairs = LoRATrainer(), DPOTrainer()
    plain = Experiment(**(parts | {"trainer": first})).plan()
    assert "preferences" not in plain
    for trainer in (pairs, SFTThenDPOTrainer(sft=first, dpo=pairs)):
        plan = Experiment(**(parts | {"trainer": trainer})).plan()
        names = list(plan)
        assert names[names.index("assemble") :] == ["assemble", "preferences", "train", "evaluate/none"]
        made, train = plan["preferences"], plan["train"]
        assert isinstance(made, Preferences) and isinstance(train, Train) and train.preferences is made
        assert (made.instruction, made.decisions) == (plan["select_instruction"], plan["select_response"])
        assert made.training is plan["assemble"] and made in train.inputs
        assert [plan[name].key for name in names[:-3]] == [plain[name].key for name in names[:-3]]


def test_plan_until_an_unknown_stage_names_those_that_there_are(parts: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"until=training is no stage.*source, .*assemble, train"):
        Experiment(**parts, until="training").plan()


def test_plan_scoring_template_is_the_one_asked_in_and_training_keeps_its_own(parts: dict[str, Any]) -> None:
    other = PromptTemplate(user="Q {instruction}", user_with_input="Q {instruction} {input}")
    plain, apart, same = (
        Experiment(**parts, scoring_template=template).plan() for template in (None, other, parts["template"])
    )
    likelihoods = apart["likelihoods"]
    assert isinstance(likelihoods, Likelihoods) and likelihoods.template == other
    assert likelihoods.trained_in == parts["template"]
    assert apart["train"].template == parts["template"]  # type: ignore[attr-defined]
    assert plain["likelihoods"].trained_in is None  # type: ignore[attr-defined]
    assert same["likelihoods"].key == plain["likelihoods"].key != apart["likelihoods"].key


def test_run_in_another_scoring_template_says_so_in_log_and_record(
    parts: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    other = PromptTemplate(user="Q {instruction}", user_with_input="Q {instruction} {input}")
    told = []
    for template in (other, None):
        experiment = Experiment(**parts | {"selector": NEVER}, scoring_template=template, until="likelihoods")
        run(experiment, {}, [])
        stage = experiment.plan()["likelihoods"]
        found = Store(experiment.store).find(stage.name, stage.key)
        assert found is not None
        warned = "scored in another template than it is trained in" in capsys.readouterr().err
        told.append((warned, found.metrics["scored_in_another_template"], found.metrics["anchor"]))
    assert told == [(True, True, "bos"), (False, False, "bos")]


def test_plan_another_selector_shares_replies_and_likelihoods(parts: dict[str, Any]) -> None:
    one, other = (
        Experiment(**(parts | {"selector": selector})).plan() for selector in (PAPER, {**PAPER, "response": IFD()})
    )
    same = [label for label in one if one[label].key == other[label].key]
    assert same == [*SCORED, "select_instruction"]


def test_plan_chosen_reflects_on_what_was_chosen(parts: dict[str, Any]) -> None:
    plan = Experiment(**(parts | {"reflection": _wording("chosen")})).plan()
    stage = plan["reflect_response"]
    assert isinstance(stage, Reflect) and stage.chosen is plan["select_instruction"]


@pytest.mark.parametrize("field", ["keep", "evaluator"])
def test_experiment_without_any_of_a_list_is_refused(parts: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Experiment(**(parts | {field: {}}))


def _told(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


def _decided(parts: dict[str, Any]) -> list[dict[str, Any]]:
    experiment = Experiment(**parts)
    run(experiment, {}, [])
    stage = experiment.plan()["select_response"]
    found = Store(experiment.store).find(stage.name, stage.key)
    assert found is not None
    return list(found.table("decisions").to_pylist())


def test_run_second_time_hits_everything_and_tells_as_much(parts: dict[str, Any]) -> None:
    first, second = (_told(run(Experiment(**parts), {"teacher": "scripted"}, ["x=1"])) for _ in range(2))
    assert [stage["how"] for stage in first["stages"]] == ["run"] * 10
    assert [stage["how"] for stage in second["stages"]] == ["hit"] * 10
    assert first["metrics"] == second["metrics"]
    assert first["metrics"]["source/rows"] == 6
    assert (first["status"], first["choices"], first["overrides"]) == ("finished", {"teacher": "scripted"}, ["x=1"])
    assert first["id"] != second["id"]


def test_run_chosen_scope_decides_as_all_scope(parts: dict[str, Any]) -> None:
    """The scripted teacher's reply depends on the base alone, so both orders must end in the same decisions."""
    every = _decided(parts)
    chosen = _decided(parts | {"reflection": _wording("chosen")})
    for one, other in zip(every, chosen, strict=True):
        names = ("id", "incumbent", "challenger", "chosen", "reason")
        assert [one[name] for name in names] == [other[name] for name in names]
        assert one["margin"] == pytest.approx(other["margin"], rel=1e-5)


def test_run_that_fails_says_how_far_it_came(parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, work: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(Reflect, "run", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        run(Experiment(**parts), {}, [])
    (folder,) = (parts["store"] / "runs").iterdir()
    told = _told(folder)
    assert (told["status"], [stage["label"] for stage in told["stages"]]) == ("failed", ["source"])
    events = [json.loads(line)["event"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert events == ["run", "stage", "end"]


def test_run_without_the_teachers_key_starts_nothing(parts: dict[str, Any]) -> None:
    experiment = Experiment(**(parts | {"teacher": OpenAITeacher(model="m")}))
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        run(experiment, {}, [])
    assert list((parts["store"] / "runs").iterdir()) == []
    assert list((parts["store"] / "artifacts").iterdir()) == []


def test_planned_says_hit_resume_or_run_and_what_changed(parts: dict[str, Any]) -> None:
    experiment = Experiment(**(parts | {"selector": NEVER}))
    assert {stage.how for stage in planned(experiment)} == {"run"}
    run(experiment, {}, [])
    assert {stage.how for stage in planned(experiment)} == {"hit"}
    other = Experiment(**(parts | {"selector": NEVER, "data": World(count=7, mix={"ok": 1.0})}))
    source, *later = planned(other)
    assert (source.how, source.changed) == ("run", ["data.count: 6 -> 7"])
    assert all(stage.how == "run" and stage.changed for stage in later)
    scratch = Store(parts["store"]).scratch("source", source.key)
    scratch.mkdir(parents=True)
    (scratch / "shard").write_text("")
    assert planned(other)[0].how == "resume"


def test_plan_samples_with_scope_all_are_refused_where_a_teacher_is_asked(parts: dict[str, Any]) -> None:
    sampled = parts | {"teacher": ScriptedTeacher(samples=3)}
    said = r"teacher\.samples=3 would need 3 answers to each of 3 new instr.*set reflection\.scope=chosen"
    with pytest.raises(UserError, match=said):
        Experiment(**sampled).plan()
    assert list(Experiment(**sampled | {"selector": NEVER}).plan()) == ["source", *END]
    labels = list(Experiment(**sampled | {"reflection": _wording("chosen")}).plan())
    assert labels == list(Experiment(**parts | {"reflection": _wording("chosen")}).plan())


def test_run_more_samples_never_choose_worse(parts: dict[str, Any]) -> None:
    """The first samples are the same, so the best of three new instructions has at least the value of the first."""
    told = {}
    for samples in (1, 3):
        teacher = ScriptedTeacher(samples=samples)
        experiment = Experiment(
            **parts | {"teacher": teacher, "reflection": _wording("chosen"), "until": "select_instruction"}
        )
        run(experiment, {}, [])
        stage = experiment.plan()["select_instruction"]
        found = Store(experiment.store).find(stage.name, stage.key)
        assert found is not None
        told[samples] = found.table("decisions").to_pylist()
    assert {line["challengers"] for line in told[3]} == {3}
    for one, three in zip(told[1], told[3], strict=True):
        assert three["challenger_value"] >= one["challenger_value"] * (1 - 1e-5)
    assert any(line["chosen"] in ("instruction-2", "instruction-3") for line in told[3])
