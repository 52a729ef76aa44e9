"""A W&B offline run, read back by W&B's own reader: configuration, summary, history, artifacts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import SMALL, Make

pytestmark = pytest.mark.e2e


@pytest.fixture
def recorded(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[dict, list[dict], dict]:
    """Run the small chain with W&B and return its summary, its records, and our own run.json."""
    from srecycle.runner import run

    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc: no key
    choices = {"teacher": "scripted", "selector@selector.response": "reversed_ifd"}
    folder = run(make(*SMALL, "tracker=wandb", "group=trial"), choices, [])
    (offline,) = folder.glob("wandb/offline-run-*")

    def inspect(*arguments: str) -> str:
        program = Path(sys.executable).with_name("wandb")
        done = subprocess.run(
            [program, "leet", "inspect", *arguments, str(offline)], capture_output=True, text=True, check=True
        )
        return done.stdout

    records = [json.loads(line) for line in inspect("--json").splitlines()]
    return json.loads(inspect("--summary", "--json")), records, json.loads((folder / "run.json").read_text())


def test_wandb_offline_run_holds_config_summary_history_and_artifacts(
    recorded: tuple[dict, list[dict], dict],
) -> None:
    summary, records, own = recorded

    config = summary["config"]
    assert config["choice/teacher"] == "scripted"
    assert config["cfg"]["keep"]["ifd_max"]["below"] == 1.0
    assert config["key/train"] == next(stage["key"] for stage in own["stages"] if stage["label"] == "train")
    logged = summary["summary"]
    for name in ("assemble/kept", "evaluate/testbed/accuracy/mean", "likelihoods/versions"):
        assert logged[name] == own["metrics"][name]
    assert logged["status"] == "finished" and summary["exit_code"] == 0
    history = [record["history"]["item"] for record in records if "history" in record]
    curve = [line["train/loss"] for line in history if "train/loss" in line]
    assert len(curve) == 4
    artifacts = {record["artifact"]["type"] for record in records if "artifact" in record}
    assert artifacts == {"dataset", "model", "evaluation"}
