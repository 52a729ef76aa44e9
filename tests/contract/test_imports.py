"""Imports point downwards only, and planning stays light."""

import json
import os
import subprocess
import sys

import pytest

from tests.contract.source import FOLDERS, ROOT, imports, modules

LOW = ("errors", "answers", "digest", "placeholders", "progress", "rows", "config")
LAYERS: tuple[tuple[str, ...], ...] = (
    LOW,
    ("store",),
    ("stage",),
    FOLDERS,
    ("experiment",),
    ("runner",),
    ("compose",),
    ("__main__",),
    ("study",),
    ("sweep",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
HEAVY = {"torch", "transformers", "trl", "peft", "lm_eval", "wandb", "datasets", "ray"}


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name == "srecycle" or name.startswith("srecycle.")}


def test_every_module_has_its_layer() -> None:
    parts = {_part(module) for module in modules()} - {""}
    assert parts == set(LEVEL) | {"testbed", "report"}


@pytest.mark.parametrize("module", [name for name in modules() if _part(name) in LEVEL])
def test_module_imports_nothing_above_itself(module: str) -> None:
    level = LEVEL[_part(module)]
    for name in _own_imports(module):
        part = _part(name)
        if part == "report":
            assert _part(module) in ("__main__", "study", "sweep"), f"{module} imports {name}"
        elif part == "testbed":
            assert _part(module) in FOLDERS, f"{module} imports {name}"
        elif part:
            assert LEVEL[part] <= level, f"{module} imports {name}, which stands above it"


def test_component_folders_do_not_need_each_other_in_a_circle() -> None:
    needs = {folder: set[str]() for folder in FOLDERS}
    for module in modules():
        if (folder := _part(module)) in needs and not module.endswith(".__main__"):  # a command stands above them all
            needs[folder] |= {_part(name) for name in _own_imports(module)} & set(FOLDERS) - {folder}
    while free := {folder for folder, others in needs.items() if not others}:
        needs = {folder: others - free for folder, others in needs.items() if folder not in free}
    assert not needs, f"these import each other: {needs}"


def test_testbed_imports_no_component() -> None:
    for module in modules():
        if _part(module) == "testbed":
            allowed = {"testbed", "", *LOW}
            assert {_part(name) for name in _own_imports(module)} <= allowed, module


def test_report_imports_no_component_but_the_scorer() -> None:
    for module in modules():
        if _part(module) == "report":
            used = {_part(name) for name in _own_imports(module)} & {*FOLDERS, "experiment", "runner"}
            assert used <= ({"tracker"} if module.endswith("__main__") else {"scorer"}), module


def test_only_the_wandb_tracker_imports_wandb() -> None:
    users = {module for module in modules() if any(name.split(".")[0] == "wandb" for name in imports(module))}
    assert users == {"srecycle.tracker.wandb"}


def test_heavy_libraries_are_imported_where_they_are_needed_only() -> None:
    users = {
        module
        for module in modules()
        if _part(module) != "testbed"
        and any(name.split(".")[0] in HEAVY for name in imports(module, at_import_only=True))
    }
    assert users == {"srecycle.student.divergence", "srecycle.student.inference", "srecycle.student.network"}


_PLANNING = """
import json, sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from srecycle.compose import PACKAGE, build
OmegaConf.register_new_resolver("srecycle.package", lambda path: str(PACKAGE / path), replace=True)
with initialize_config_dir(config_dir=sys.argv[1], version_base="1.3"):
    _, experiment = build(compose("config", overrides=sys.argv[2:]))
from srecycle.runner import planned
stages = [stage.label for stage in planned(experiment)]
print(json.dumps([stages, sorted(name for name in sys.modules if "." not in name)]))
"""


def test_planning_imports_no_heavy_library() -> None:
    command = [sys.executable, "-c", _PLANNING, str(ROOT / "conf"), "evaluator=[testbed,none]"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    stages, loaded = json.loads(done.stdout)
    assert stages[0] == "source" and {"likelihoods", "train", "evaluate/testbed"} <= set(stages)
    assert not HEAVY & set(loaded)
