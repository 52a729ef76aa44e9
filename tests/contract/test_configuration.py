"""Every YAML composes and builds; every component has one; nothing else can be built."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from srecycle.compose import PACKAGE, build
from srecycle.config import Component, fingerprint, identity
from srecycle.errors import UserError
from srecycle.experiment import Experiment
from srecycle.stage import Stage
from srecycle.testbed import format as testbed_format
from srecycle.testbed.originals import MIX
from srecycle.testbed.script import DECENT, SLOPPY
from tests.contract.source import ROOT, component_classes, qualified

CONF = ROOT / "conf"
FILES = sorted(file for file in CONF.glob("*/*.yaml") if file.parent.name != "experiment")
EXPERIMENTS = sorted(
    file
    for file in (ROOT / "experiments").rglob("*.yaml")
    # The paper's tables want files and models of their own: test_paper.py has stand-ins for them.
    if file.relative_to(ROOT).parts[1] != "paper" or file.stem.startswith("table4_")
)
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
PLACES = {
    "selector": "selector@selector.response",
    "verifier": "verifier@reflection.verifier",
    "judge": "judge@evaluator.pairwise.judge",
}
LISTS = ("keep", "evaluator")


@pytest.fixture(scope="module", autouse=True)
def _composing() -> Iterator[None]:
    OmegaConf.register_new_resolver("srecycle.package", lambda path: str(PACKAGE / path), replace=True)
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        yield


def _names(files: list[Path]) -> list[str]:
    return [file.relative_to(ROOT).with_suffix("").as_posix() for file in files]


def _stand_ins(file: Path, tmp_path: Path) -> list[str]:
    """Give what the YAML asks its user for."""
    group, name = file.parent.name, file.stem
    rows = tmp_path / "rows.json"
    rows.write_text('[{"instruction": "i", "output": "o"}]')
    base = str(PACKAGE / "testbed/bases/weak")
    values = {"path": base if group == "student" else str(rows), "tasks": "[arc_easy]", "model.path": base}
    values |= {"prompts": f"{{v: {rows}}}", "against": str(rows), "paths": f"[{rows}]", "teacher.model.path": base}
    values["names"] = "[a]"
    if group == "embedder":
        (tmp_path / "modules.json").write_text("[]")
        values["path"] = str(tmp_path)
    values["reversed_request"] = "'which question fits {response}'"
    content = yaml.safe_load(file.read_text())
    asked = [key for key, value in content.items() if value == "???"]
    asked += ["model.path"] if {"/student@model": "hf"} in content.get("defaults", []) else []
    asked += ["teacher.model.path"] if {"/teacher@teacher": "transformers"} in content.get("defaults", []) else []
    place = f"{group}.{name}" if group in LISTS else PLACES[group].partition("@")[2] if group == "judge" else group
    if group == "judge":  # stands inside an evaluator
        pairwise = [f"evaluator.pairwise.{key}={values[key]}" for key in ("prompts", "against")]
        return ["evaluator=[pairwise]", *pairwise, *(f"{place}.{key}={values[key]}" for key in asked)]
    student = ["student=testbed_weak"] if group == "data" and name != "testbed" else []
    return [*student, *(f"{place}.{key}={values[key]}" for key in asked)]


def _built(overrides: list[str]) -> tuple[Any, Experiment]:
    config = compose("config", overrides=overrides)
    _, experiment = build(config)
    assert isinstance(experiment, Experiment)
    return config, experiment


@pytest.mark.parametrize("file", FILES, ids=_names(FILES))
def test_group_file_composes_in_place_of_its_group_and_builds(file: Path, tmp_path: Path) -> None:
    group, name = file.parent.name, file.stem
    choice = f"[{name}]" if group in LISTS else name
    _, experiment = _built([f"{PLACES.get(group, group)}={choice}", *_stand_ins(file, tmp_path)])
    if group == "judge":
        part = experiment.evaluator["pairwise"].judge
    else:
        part = experiment.reflection.verifier if group == "verifier" else getattr(experiment, group)
    part = part["response"] if group == "selector" else part[name] if group in LISTS else part
    assert qualified(type(part)) == yaml.safe_load(file.read_text())["_target_"]
    assert fingerprint(identity(part))


@pytest.mark.parametrize("file", FILES, ids=_names(FILES))
def test_group_file_lists_every_field(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    cls = hydra.utils.get_class(content.pop("_target_"))
    listed = [one for one in content.pop("defaults", []) if isinstance(one, dict)]
    inside = {key.partition("@")[2] for one in listed for key in one if "@" in key and "@_global_" not in key}
    assert set(content) | {place.partition(".")[0] for place in inside} == {declared.name for declared in fields(cls)}


def test_every_component_has_a_file() -> None:
    targets = {yaml.safe_load(file.read_text())["_target_"] for file in FILES}
    wanted = {qualified(cls) for cls in component_classes() if not issubclass(cls, Stage | Experiment)}
    assert targets == wanted


def test_every_field_of_the_experiment_is_set() -> None:
    config, _ = _built([])
    required = {one.name for one in fields(Experiment) if one.default is MISSING and one.default_factory is MISSING}
    assert required <= set(config)
    optional = {"scoring_template"}  # a null group is Hydra's to refuse: +template@scoring_template=NAME adds it
    assert {one.name for one in fields(Experiment)} - optional == {*config} - {"_target_", "seed", "mode"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=_names(EXPERIMENTS))
def test_experiment_composes_builds_and_plans(file: Path) -> None:
    name = file.relative_to(ROOT / "experiments").with_suffix("").as_posix()
    _, experiment = _built([f"experiment={name}"])
    plan = experiment.plan()
    assert next(iter(plan)) == "source" and (experiment.until or "assemble") in plan
    stages = list(plan.values())
    for place, stage in enumerate(stages):
        assert all(one in stages[:place] for one in stage.inputs), f"{stage.name} reads what is made later"


@pytest.mark.parametrize(
    "override",
    [
        "teacher._target_=os.system",
        "teacher._target_=srecycle.digest.os.system",
        "teacher._target_=builtins.eval",
        "teacher._target_=srecycle.teacher.scripted.random.Random",
        "teacher._target_=srecycle.errors.UserError",
        "teacher._target_=srecycle.nowhere.Nothing",
        "student._target_=srecycle.student.Student",  # one class, one name: the one that stands in identities
        "teacher._target_=srecycle.teacher.Teacher.nothing",
        "teacher._target_=eval",
        "teacher._target_=",
        "data.mix.ok={_target_:os.getlogin}",
        "+evaluator.more={_target_:subprocess.Popen}",
        "+data.extra=[{_target_:os.getlogin}]",
    ],
)
def test_build_target_that_is_no_component_is_refused_and_not_called(
    override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr("os.system", called.append)
    monkeypatch.setattr("os.getlogin", lambda: called.append("getlogin"))
    config = compose("config", overrides=[override])
    with pytest.raises(UserError, match="is refused: it names no component of srecycle"):
        build(config)
    assert called == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student=hf"], r"student\.path is not set: give it on the command line, student\.path=VALUE"),
        (["trainer.rank=0"], r"trainer\.rank=0: Input should be greater than or equal to 1"),
        (["trainer.rank=many"], r"trainer\.rank='many': Input should be a valid integer"),
        (["trainer.schedule=sine"], r"trainer\.schedule='sine': Input should be 'linear', 'cosine' or 'constant"),
        (["+trainer.rnk=4"], r"trainer\.rnk is not a setting of LoRATrainer \(did you mean rank\?\)"),
        (["selector.response.tie=both"], r"selector\.response\.tie='both'"),
        (["keep.ifd_max.below=.nan"], r"keep\.ifd_max\.below"),
        (["data.mix.ok=2"], r"data\.mix\.ok=2"),
        (["data.limit=0"], r"data\.limit=0"),
        (["mode=go"], "mode=go is not known: use mode=run or mode=plan"),
        (["teacher.mismatches=0.9", "teacher.drifts=0.9"], "at most one fault an answer"),
        (["trainer=${nowhere}"], "nowhere"),
    ],
)
def test_build_wrong_value_is_one_line_that_names_the_field(overrides: list[str], said: str) -> None:
    if overrides == ["trainer=${nowhere}"]:
        overrides = ["trainer.rank=${nowhere}"]
    with pytest.raises(UserError, match=said) as refused:
        build(compose("config", overrides=overrides))
    assert "\n" not in str(refused.value)


@cache
def _default_keys() -> dict[str, str]:
    return _keys([])


def _keys(overrides: list[str]) -> dict[str, str]:
    return {label: stage.key for label, stage in _built(overrides)[1].plan().items()}


@pytest.mark.parametrize(
    ("override", "first_changed"),
    [
        ("engine.workers=4", None),
        ("engine.shard_rows=7", None),
        ("scorer.batch_tokens=1", None),
        ("trainer.device_batch=1", None),
        ("evaluator.testbed.batch_size=3", None),
        ("name=other", None),
        ("tracker=none", None),
        ("store=/tmp", None),
        ("data.count=9", "source"),
        ("teacher.seed=9", "reflect_instruction"),
        ("reflection.system=x", "reflect_instruction"),
        ("scorer.score_eos=true", "likelihoods"),
        ("student.max_length=64", "likelihoods"),
        ("template=alpaca", "likelihoods"),
        ("selector@selector.instruction=perplexity", "select_instruction"),
        ("selector@selector.response=random", "select_response"),
        ("keep.ifd_max.below=0.9", "assemble"),
        ("trainer.rank=1", "train"),
        ("evaluator.testbed.items=3", "evaluate/testbed"),
    ],
)
def test_plan_setting_changes_keys_from_its_stage_on(override: str, first_changed: str | None) -> None:
    before, after = _default_keys(), _keys([override])
    changed = [label for label in before if before[label] != after[label]]
    assert (changed[0] if changed else None) == first_changed
    if first_changed == "source":
        assert changed == list(before)


def test_scripted_teachers_are_the_testbeds() -> None:
    for name, knobs in (("scripted", DECENT), ("scripted_sloppy", SLOPPY)):
        teacher: Any = _built([f"teacher={name}"])[1].teacher
        assert teacher.knobs() == knobs


def test_testbed_formats_are_the_testbeds() -> None:
    _, experiment = _built(["template=testbed", "scorer=testbed"])
    assert experiment.template.prompt("{x} y") == testbed_format.forward_prompt("{x} y")
    asked = experiment.scorer.request("r .")
    assert experiment.template.prompt(asked) == testbed_format.reversed_prompt("r .")
    assert experiment.scorer.reversed_request == testbed_format.REVERSED_REQUEST


def test_testbed_mix_is_the_testbeds() -> None:
    data: Any = _built(["data=testbed"])[1].data
    assert data.mix == dict(MIX)


@pytest.mark.parametrize("file", SWEEPS, ids=_names(SWEEPS))
def test_sweep_arguments_compose_with_hydra(file: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(file.read_text())
    assert sweep["command"][-1] == "${args_no_hyphens}" and sweep["program"] == "srecycle"
    for end in (0, -1):
        chosen = {name: {"value": _values(spec)[end]} for name, spec in sweep["parameters"].items()}
        arguments = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        own = [part for part in sweep["command"] if "${" not in part]
        config, experiment = _built([*own, *arguments])
        assert experiment.plan()
        for name, value in chosen.items():
            if "." in name and "@" not in name and not isinstance(OmegaConf.select(config, name), Component | dict):
                assert OmegaConf.select(config, name) == value["value"]


def _values(spec: dict[str, Any]) -> list[Any]:
    if "value" in spec:
        return [spec["value"]]
    return list(spec["values"]) if "values" in spec else [spec["min"], spec["max"]]


def test_sweep_metric_is_one_that_runs_log() -> None:
    stages = set(_built([])[1].plan())
    for file in SWEEPS:
        name = yaml.safe_load(file.read_text())["metric"]["name"]
        assert any(name.startswith(f"{stage}/") for stage in stages), f"{file.name}: {name}"
