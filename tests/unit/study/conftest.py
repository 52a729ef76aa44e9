"""A store with a small experiment in it, as the stages left it, and what the study's commands say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from srecycle.experiment import Experiment
from srecycle.stage import materialize
from srecycle.store import Artifact, Store
from srecycle.study.__main__ import main
from srecycle.study.sweep import sweep

ROWS = 40


class Small:
    """The micro-world's experiment on a few rows, in a store of its own."""

    def __init__(self, root: Path, *overrides: str) -> None:
        self.overrides = [f"data.count={ROWS}", f"store={root}", "tracker=none", "evaluator=[none]", *overrides]

    def experiment(self, *overrides: str) -> Experiment:
        (setting,) = sweep([*self.overrides, *overrides]).settings
        return setting.experiment

    def made(self, *overrides: str, until: str = "assemble") -> dict[str, Artifact]:
        """Run the stages, and return their artifacts by label."""
        return self.stages(replace(self.experiment(*overrides), until=until))

    def stages(self, experiment: Experiment) -> dict[str, Artifact]:
        store = Store(experiment.store)
        return {label: materialize(stage, store).artifact for label, stage in experiment.plan().items()}


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = Small(tmp_path_factory.mktemp("small") / "store")
    made.made(until="scores")
    return made


@pytest.fixture(scope="session")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Small:
    made = Small(tmp_path_factory.mktemp("chosen") / "store", "reflection.scope=chosen")
    made.made(until="scores")
    return made


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a command which must fail, and returns the one line that it says."""

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        said = capsys.readouterr()
        assert said.err.startswith("srecycle-study: error: ") and said.err.count("\n") == 1
        return said.err

    return run
