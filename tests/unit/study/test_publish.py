"""What was trained, laid out for others: complete, and naming no folder of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from srecycle.store import Store
from srecycle.study.__main__ import main


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a run that trained an adapter of a local base."""
    root = Store(tmp_path / "store").root
    made = root / "artifacts" / "train" / "k1"
    (made / "adapter").mkdir(parents=True)
    config = {"base_model_name_or_path": str(tmp_path / "base"), "r": 4}
    (made / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    (made / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "README.md").write_text("the card")
    run = root / "runs" / "20260101-000000-000-mine-0000"
    run.mkdir(parents=True)
    about = {"id": run.name, "name": "mine", "group": "", "status": "finished", "seconds": 1.0, "config": {}}
    stages = [{"label": "train", "stage": "train", "key": "k1", "how": "run", "seconds": 1.0}]
    about |= {"overrides": [], "choices": {}, "metrics": {}, "stages": stages}
    (run / "run.json").write_text(json.dumps(about))
    return root


def _publish(store: Path, *options: str) -> int:
    return main(["publish", "mine", "--store", str(store), *options])


def test_publish_lays_out_the_adapter_with_its_card_and_its_base_on_the_hub(store: Path, tmp_path: Path) -> None:
    assert _publish(store, "--out", str(tmp_path / "out"), "--base", "some/model") == 0
    out = tmp_path / "out"
    assert {one.name for one in out.iterdir()} == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((out / "adapter_config.json").read_text())
    assert config == {"base_model_name_or_path": "some/model", "r": 4}
    kept = json.loads((store / "artifacts/train/k1/adapter/adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == str(tmp_path / "base"), "the store's own file is left alone"


def test_publish_base_in_a_folder_of_this_machine_is_refused(store: Path, tmp_path: Path, capsys: Any) -> None:
    assert _publish(store, "--out", str(tmp_path / "out")) == 2
    told = capsys.readouterr().err
    assert "--base HUB_ID" in told and str(tmp_path) not in told


def test_publish_run_that_trained_nothing_is_refused(store: Path, tmp_path: Path, capsys: Any) -> None:
    (store / "artifacts/train/k1/adapter").rename(store / "artifacts/train/k1/other")
    assert _publish(store, "--out", str(tmp_path / "out"), "--base", "some/model") == 2
    assert "trained nothing" in capsys.readouterr().err


def test_publish_without_a_place_is_refused(store: Path, capsys: Any) -> None:
    assert _publish(store) == 2
    assert "--push OWNER/NAME" in capsys.readouterr().err
