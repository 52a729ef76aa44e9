"""kill -9 in the second round's training: the same command goes on there, and ends in the same student."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.e2e.conftest import command

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SETTINGS = (
    "data.count=24",
    "rounds=2",
    "keep=[none]",
    "trainer.max_steps=30",
    "trainer.batch_size=4",
    "trainer.device_batch=4",
    "trainer.checkpoint_steps=4",
    "evaluator=[drift]",
    "tracker=jsonl",
)


def test_rounds_killed_in_the_second_end_in_the_same_student(tmp_path: Path) -> None:
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    process = command(*SETTINGS, store=killed)
    _wait(lambda: len(_ended(killed)) == 1 and bool(list(killed.glob(f"artifacts/train/*/.work/{_CHECKPOINT}"))))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (first,) = _ended(killed)
    for store in (killed, unbroken):
        _, errors = (process := command(*SETTINGS, store=store)).communicate(timeout=240)
        assert process.returncode == 0, errors
    assert _ended(killed).keys() == _ended(unbroken).keys() > {first}
    for key, folder in _ended(killed).items():
        provenance = json.loads((folder / "provenance.json").read_text())
        assert provenance["resumed"] == (key != first)
        ours, theirs = (
            load_file(one[key] / "adapter/adapter_model.safetensors") for one in map(_ended, (killed, unbroken))
        )
        assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in ours)
    names = [json.loads(file.read_text())["name"] for file in sorted(killed.glob("runs/*/run.json"))]
    assert sorted(names) == ["selective round 1"] * 2 + ["selective round 2"]


_CHECKPOINT = "checkpoints/checkpoint-*/srecycle_finished"


def _ended(store: Path) -> dict[str, Path]:
    return {file.parent.name: file.parent for file in store.glob("artifacts/train/*/record.json")}


def _wait(come: Callable[[], bool]) -> None:
    limit = time.monotonic() + 200
    while not come():
        assert time.monotonic() < limit, "the second round's training never came to a checkpoint"
        time.sleep(0.005)
