"""What `wandb agent` says in the environment."""

from pathlib import Path

import pytest

from srecycle.tracker import RunInfo
from srecycle.tracker.agent import run_id, sweep


def _info(**choices: str) -> RunInfo:
    config = {"rounds": 3 if "round" in choices else 1}
    return RunInfo(id="own", name="n", group="", folder=Path(), choices=choices, overrides=(), config=config, keys={})


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def test_run_of_ones_own_keeps_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep() is None and run_id(_info()) == "own"
    monkeypatch.setenv("WANDB_RUN_ID", "somebody's")
    assert run_id(_info()) == "own", "an id that no sweep gave is not ours to take"


def test_run_of_a_sweep_has_the_id_that_its_agent_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert sweep() == "s1" and run_id(_info()) == "own"
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert run_id(_info()) == "given"


def test_of_several_rounds_the_last_is_the_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    assert [run_id(_info(round=number)) for number in "123"] == ["own", "own", "given"]
