"""Running experiments in this process, and as a command."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from safetensors import safe_open

from srecycle.compose import build, config_folder
from srecycle.experiment import Experiment
from srecycle.report.runs import Run, read_run
from srecycle.runner import run

SMALL = (
    "data.count=48",
    "trainer.max_steps=4",
    "trainer.batch_size=4",
    "trainer.device_batch=4",
    "evaluator.testbed.items=3",
    "tracker=jsonl",
)
"""The micro-world's chain at its smallest."""

Make = Callable[..., Experiment]
Go = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that builds an experiment from command line overrides, over a store in the test's folder."""

    def made(*overrides: str) -> Experiment:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            _, experiment = build(compose("config", [f"store={tmp_path / 'store'}", *overrides]))
        assert isinstance(experiment, Experiment)
        return experiment

    return made


@pytest.fixture
def go(make: Make) -> Callable[..., Run]:
    """Return a function that runs an experiment from overrides, and reads the run back."""

    def gone(*overrides: str) -> Run:
        return read_run(run(make(*overrides), {}, list(overrides)))

    return gone


def command(*arguments: str, store: Path, **options: object) -> subprocess.Popen[str]:
    """Start `srecycle` as a command of its own."""
    environment = os.environ | {"SRECYCLE_STORE": str(store), "OMP_NUM_THREADS": "1"}
    environment.pop("WANDB_API_KEY", None)
    return subprocess.Popen(
        [sys.executable, "-m", "srecycle", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def ran(run_: Run) -> set[str]:
    """Return the labels of the stages that were made in this run, not found."""
    return {str(stage["label"]) for stage in run_.stages if stage["how"] != "hit"}


def contents(store: Path) -> dict[str, str]:
    """Return a digest of every file of every artifact but its provenance; of adapters, of every tensor's bytes."""
    contents = {}
    for file in sorted((store / "artifacts").rglob("*")):
        name = file.relative_to(store).as_posix()
        if file.is_dir() or file.name == "provenance.json":
            continue
        assert ".work" not in name, f"{name} was left behind"
        if file.suffix == ".safetensors":
            with safe_open(file, "np") as tensors:
                for key in sorted(tensors.keys()):
                    contents[f"{name}:{key}"] = hashlib.sha256(tensors.get_tensor(key).tobytes()).hexdigest()
        else:
            contents[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return contents


def paid_requests(store: Path) -> set[str]:
    """Return the requests that the ledger has replies to, as `tests.faulty_server` names them."""
    ledger = store / "ledger.sqlite"
    if not ledger.exists():
        return set()
    with sqlite3.connect(ledger) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchall():
            return set()  # whoever was making it was killed
        lines = connection.execute("SELECT request FROM replies").fetchall()
    return {json.dumps(json.loads(request), sort_keys=True) for (request,) in lines}
