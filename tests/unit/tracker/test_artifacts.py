"""Which artifacts a stage leaves, and what they were made from."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from srecycle.compose import build, config_folder
from srecycle.tracker.artifacts import KINDS, kept, lineage

EVENT = {
    "event": "stage",
    "stage": "evaluate/testbed",
    "key": "0123456789abcdef",
    "how": "hit",
    "metrics": {"accuracy": 0.5, "by": {"split": 1}, "none": None},
    "artifact": {"stage": "evaluate", "inputs": [["train", "ab"]], "files": {"results.json": {}, "gone.json": {}}},
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts" / "evaluate" / EVENT["key"]
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    (folder / "results.json").write_bytes(b"x" * 2048)
    return tmp_path


def test_artifact_tells_its_key_and_what_it_was_made_from(store: Path) -> None:
    one = kept(EVENT, store, 1.0)
    assert (one.name, one.kind) == ("evaluate-testbed-0123456789ab", "evaluation")
    assert one.metadata == {
        "key": EVENT["key"],
        "stage": "evaluate",
        "inputs": [["train", "ab"]],
        "accuracy": 0.5,
        "by.split": 1,
    }
    assert set(one.files) == {"record.json", "results.json"} and not one.references, "what was pruned is left out"


def test_file_above_the_limit_is_referred_to(store: Path) -> None:
    one = kept(EVENT, store, 1024 / 2**20)
    assert set(one.files) == {"record.json"} and set(one.references) == {"results.json"}
    assert set(kept(EVENT, store, 0.0).references) == {"record.json", "results.json"}


@pytest.mark.parametrize("overrides", [(), ("trainer=sft_dpo", "selector@selector.response=coherence")])
def test_every_stage_has_a_kind_of_artifact(overrides: tuple[str, ...]) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        _, experiment = build(compose("config", list(overrides)))
    stages = list(experiment.plan().values())
    assert {stage.name for stage in stages} <= set(KINDS)
    inputs = {one.name for stage in stages for one in stage.inputs}
    assert inputs <= set(KINDS), "what was made from something that is nowhere has no lineage"


def test_lineage_follows_the_stages_and_reads_older_files() -> None:
    older = {"event": "stage", "stage": "source", "key": "ab", "how": "run", "metrics": {}}
    told = lineage([{"event": "run"}, older, EVENT])
    assert told["source"] == {"key": "ab", "how": "run"}
    assert told["evaluate/testbed"]["inputs"] == [["train", "ab"]]
    json.dumps(told, allow_nan=False)
