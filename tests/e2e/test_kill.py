"""kill -9 in the middle of a stage, run again: the same bytes as an unbroken run, and only the rest is done."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import command, contents

pytestmark = pytest.mark.e2e

# One shard or checkpoint after the other, slow enough to be caught in between.
SETTINGS = (
    "data.count=160",
    "engine.shard_rows=4",
    "trainer.max_steps=24",
    "trainer.batch_size=4",
    "trainer.device_batch=4",
    "trainer.checkpoint_steps=4",
    "evaluator.testbed.items=3",
    "tracker=jsonl",
)


SIGNS = {
    "reflect_instruction": "shard-000003.parquet",
    "reflect_response": "shard-000003.parquet",
    "likelihoods": "shard-000003.parquet",
    "train": "checkpoints/checkpoint-*/srecycle_finished",
}
"""What stands in a stage's scratch folder once some of its work is done."""


@pytest.mark.slow
def test_run_killed_in_one_stage_after_the_other_ends_in_the_same_bytes(tmp_path: Path) -> None:
    store, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    for stage, sign in SIGNS.items():
        process = command(*SETTINGS, store=store)
        _wait_for(store, f"artifacts/{stage}/*/.work/{sign}")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not list(store.glob(f"artifacts/{stage}/*/record.json")), f"{stage} ended before it was killed"

    _finish(store)
    _finish(unbroken)

    for stage in SIGNS:
        (facts,) = store.glob(f"artifacts/{stage}/*/provenance.json")
        known = json.loads(facts.read_text())
        assert known["resumed"], f"{stage} was begun anew"
    assert known["notes"]["resumed_from_step"] >= 4, "training should go on from its checkpoint"
    assert contents(store) == contents(unbroken)


def _finish(store: Path) -> None:
    process = command(*SETTINGS, store=store)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert len(list(store.glob("runs/*/run.json"))) == 1, "only a run that ended leaves a run.json"


def _wait_for(store: Path, pattern: str) -> None:
    limit = time.monotonic() + 120
    while not list(store.glob(pattern)):
        assert time.monotonic() < limit, f"{pattern} never came"
        time.sleep(0.005)


@pytest.mark.slow
def test_scoring_with_several_workers_ends_at_its_batch_when_terminated(tmp_path: Path) -> None:
    settings = ("data.count=600", "engine.shard_rows=300", "engine.workers=2", "until=scores", "tracker=jsonl")
    store = tmp_path / "store"
    process = command(*settings, store=store)
    _wait_for(store, "artifacts/likelihoods/*/.work/batch_tokens.json")
    time.sleep(1)  # both workers have begun their shard, which takes several seconds
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(store.glob("artifacts/likelihoods/*/.work/shard-*.parquet")), "workers went on with their shards"
