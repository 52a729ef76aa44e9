"""W&B sweep files: those that are shipped, and what is refused."""

from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from srecycle.compose import build
from srecycle.errors import UserError
from srecycle.study.sweep import composing
from srecycle.sweep.file import arguments, read_file, shipped
from srecycle.sweep.propose import drawn, grid

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))
COMMAND = ["${env}", "${program}", "${args_no_hyphens}"]


def test_shipped_files_are_those_of_the_studies() -> None:
    names = {"thresholds", "teacher_student", "selectors_seeds", "fewer_data", "margins_bayes"}
    assert names <= {file.stem for file in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_file_makes_overrides_that_compose_and_build(path: Path) -> None:
    file = read_file(path)
    assert file.name == path.stem and f"group={path.stem}" in file.fixed and file.metric
    settings = grid(file) if file.method == "grid" else drawn(file, 3, 0)
    told = [{name: {"value": value} for name, value in setting.items()} for setting in settings]
    as_wandb_says = [tuple(create_sweep_command_args({"args": one})["args_no_hyphens"]) for one in told]
    assert as_wandb_says == [arguments(setting) for setting in settings]
    keys = set()
    with composing():
        for given in [*as_wandb_says[:: max(1, len(settings) // 6)], as_wandb_says[-1]]:
            config = hydra.compose("config", overrides=[*file.fixed, *given])
            experiment = build(config)[1]
            keys.add(list(experiment.plan().values())[-1].key)
            assert any(file.metric.startswith(f"{stage}/") for stage in experiment.plan())
    assert len(keys) > 2, "what is swept should change what is made"


def _write(folder: Path, **content: Any) -> Path:
    path = folder / "own.yaml"
    whole = {"method": "grid", "parameters": {"seed": {"values": [1, 2]}}, "command": COMMAND} | content
    path.write_text(yaml.safe_dump({name: one for name, one in whole.items() if one is not None}, sort_keys=False))
    return path


def test_file_of_ones_own_is_read(tmp_path: Path) -> None:
    parameters = {"seed": {"value": 3}, "a.b": {"min": 0, "max": 4}, "c": {"min": 0.5, "max": 1.0}}
    command = ["${env}", "${interpreter}", "srecycle", "data.count=48", "${args_no_hyphens}", "group=own group"]
    file = read_file(_write(tmp_path, method="random", parameters=parameters, command=command, run_cap=7))
    assert (file.name, file.method, file.fixed, file.run_cap) == (
        "own",
        "random",
        ("data.count=48", "group=own group"),
        7,
    )
    assert [one.distribution for one in file.parameters] == ["constant", "int_uniform", "uniform"]
    assert file.metric is None and not file.maximize


REFUSED = {
    "no parameters": ({"parameters": None}, "has no parameters"),
    "unknown key": ({"early_terminate": {"type": "hyperband"}}, "early_terminate is not understood here"),
    "unknown method": ({"method": "annealing"}, "'annealing' is not known: expected one of grid, random, bayes"),
    "bayes without a metric": ({"method": "bayes"}, "needs a metric"),
    "goal": ({"metric": {"name": "m", "goal": "most"}}, "'most' is not known"),
    "interval in a grid": ({"parameters": {"a": {"min": 0, "max": 1}}}, "it can't list an interval"),
    "no value": ({"parameters": {"a": {"values": []}}}, "a.values should be a list of at least one"),
    "nothing of it": ({"parameters": {"a": {}}}, "a should have value, values, or min and max"),
    "not a mapping": ({"parameters": {"a": 1}}, "a should have value, values, or min and max"),
    "upside down": ({"parameters": {"a": {"min": 2, "max": 1}}}, "min 2 should be below max 1"),
    "distribution": (
        {"parameters": {"a": {"min": 0, "max": 1, "distribution": "beta"}}},
        "beta is not drawn from here",
    ),
    "logarithm": (
        {"parameters": {"a": {"min": 0, "max": 1, "distribution": "log_uniform_values"}}},
        "min 0 should be above 0",
    ),
    "null": ({"parameters": {"a": {"values": [None]}}}, "write the text null"),
    "list as a value": ({"parameters": {"keep": {"values": [["a", "b"]]}}}, "a list is written as text"),
    "nested": ({"parameters": {"a": {"parameters": {"b": {"value": 1}}}}}, "write its dotted key instead"),
    "command": ({"command": ["${program}", "${args}"]}, r"command needs \$\{args_no_hyphens\}"),
    "macro": ({"command": [*COMMAND, "${envvar:X}"]}, "envvar:X.*not understood"),
    "cap": ({"run_cap": 0}, "run_cap 0 should be a positive whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_file_that_asks_for_what_is_not_done_here_is_refused_by_name(case: str, tmp_path: Path) -> None:
    content, told = REFUSED[case]
    with pytest.raises(UserError, match=rf"own\.yaml.*{told}"):
        read_file(_write(tmp_path, **content))


def test_shipped_file_is_found_by_its_name_unless_one_of_ones_own_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {name: read_file(Path(name)).name for name in shipped()} == {file.stem: file.stem for file in SHIPPED}
    _write(tmp_path).rename(tmp_path / "thresholds")
    assert [one.name for one in read_file(Path("thresholds")).parameters] == ["seed"]


def test_file_that_is_no_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be read.*one of fewer_data, .*, thresholds"):
        read_file(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match="is no YAML"):
        read_file(tmp_path / "broken.yaml")
