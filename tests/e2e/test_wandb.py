"""W&B offline runs, read back by W&B's own reader: a whole chain, and the same found again in the store."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from srecycle.report.runs import Run, read_run
from srecycle.tracker.dashboard import dashboard
from srecycle.tracker.labels import RESULTS
from srecycle.tracker.logged import logged
from tests.e2e.conftest import SMALL
from tests.offline_runs import OfflineRun, offline_run

pytestmark = pytest.mark.e2e

PLANTED = "planted0secret0planted0secret0planted000"
TOLD = ("how", "seconds", "calls/paid", "calls/usd_paid")
"""What differs between a run that makes its stages and one that finds them."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run that made everything and one that found it, as W&B has them and as we do; and all that was written."""

    own: Run
    made: OfflineRun
    found: OfflineRun
    written: list[Path]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Run the small chain with W&B twice, with keys in the environment that must not get out."""
    from hydra import compose, initialize_config_dir

    from srecycle.compose import build, config_folder
    from srecycle.runner import run

    root = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_") and name != "WANDB_SERVICE"]:
            patch.delenv(name)
        patch.setenv("HOME", str(root))
        for name in ("WANDB_API_KEY", "OPENAI_API_KEY", "HF_TOKEN"):
            patch.setenv(name, PLANTED)
        overrides = [*SMALL, "tracker=wandb", "tracker.mode=offline", "tracker.table_rows=12", "group=trial"]
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            _, experiment = build(compose("config", [f"store={root / 'store'}", *overrides]))
        choices = {"teacher": "scripted", "selector@selector.response": "reversed_ifd"}
        folders = [run(experiment, choices, overrides) for _ in range(2)]
    made, found = (offline_run(next(folder.glob("wandb/offline-run-*"))) for folder in folders)
    written = [path for path in root.rglob("*") if path.is_file()]
    return Recorded(own=read_run(folders[0]), made=made, found=found, written=written)


def test_wandb_config_is_flat_to_filter_by_and_whole_under_cfg(recorded: Recorded) -> None:
    config = recorded.made.config
    assert config["choice/teacher"] == "scripted"
    assert config["threshold/keep/ifd_max/below"] == 1.0 and config["threshold/selector/response/margin"] == 0.0
    assert config["choice/selector/response"] == "reversed_ifd"
    assert config["seed/trainer"] == 0
    assert config["cfg"]["keep"]["ifd_max"]["below"] == 1.0
    assert config["key/train"] == next(stage["key"] for stage in recorded.own.stages if stage["label"] == "train")
    assert recorded.made.about["name"].startswith("selective (data.count=48, ")
    assert recorded.made.about["project"] == "srecycle" and recorded.made.about["exit_code"] == 0


def test_wandb_summary_holds_every_metric_of_the_run(recorded: Recorded) -> None:
    logged = recorded.made.summary
    missing = [name for name, value in recorded.own.metrics.items() if value is not None and logged.get(name) != value]
    assert not missing
    assert "evaluate/testbed/accuracy_stderr/mean" in logged and "select_response/reason/challenger_won" in logged
    assert logged["likelihoods/tokens_per_second"] > 0 and logged["reflect_response/calls/replies"] == 96
    assert logged["status"] == "finished"


def test_wandb_shows_scores_before_and_after(recorded: Recorded) -> None:
    logged = recorded.made.summary
    for name in ("ifd", "r_ifd"):
        before, after = logged[f"{name}/before"], logged[f"{name}/after"]
        assert sum(before["values"]) + logged[f"{name}/before/unscored"] == 48
        assert sum(after["values"]) == logged["assemble/kept"]
        assert logged[f"{name}/after/median"] == pytest.approx(logged[f"assemble/kept/{name}/median"])
        assert logged[f"{name}/after/above_one_share"] == 0.0 < logged[f"{name}/before/above_one_share"]


def test_wandb_curve_has_an_axis_of_its_own(recorded: Recorded) -> None:
    curve = [(line["train/step"], line["train/loss"]) for line in recorded.made.history if "train/loss" in line]
    assert [step for step, _ in curve] == [1, 2, 3, 4] and all(loss > 0 for _, loss in curve)


def test_wandb_decisions_are_shown_with_their_texts(recorded: Recorded) -> None:
    table = recorded.made.table("decisions")
    lines = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert len(lines) == 12
    assert {line["outcome"] for line in lines} == {"kept", "refused"}
    for line in lines:
        assert line["instruction"] and line["response"] and line["response_reason"]
        if line["offered"] != "original":
            assert line["critique"] and line["rewrite_response"] and line["ifd_offered"] is not None
        assert (line["reason"] == "") == (line["outcome"] == "kept")


def test_wandb_artifacts_tell_what_they_were_made_from(recorded: Recorded) -> None:
    artifacts = {one["name"].rpartition("-")[0]: one for one in recorded.made.artifacts if one["type"] != "run_table"}
    assert {name: one["type"] for name, one in artifacts.items()} == {
        "source": "dataset",
        "reflect_instruction": "rewrites",
        "reflect_response": "rewrites",
        "likelihoods": "likelihoods",
        "scores": "scores",
        "select_instruction": "selection",
        "select_response": "selection",
        "assemble": "dataset",
        "train": "model",
        "evaluate-testbed": "evaluation",
    }
    trained = json.loads(artifacts["train"]["metadata"])
    assembled = json.loads(artifacts["assemble"]["metadata"])
    assert trained["inputs"] == [["assemble", assembled["key"]]]
    files = {entry["path"] for entry in artifacts["train"]["manifest"]["contents"]}
    assert "adapter/adapter_model.safetensors" in files
    keys = {one["key"] for one in map(json.loads, (one["metadata"] for one in artifacts.values()))}
    inputs = {key for one in artifacts.values() for _, key in json.loads(one["metadata"])["inputs"]}
    assert inputs <= keys, "an artifact was made from one that isn't there"
    manifest = json.loads((recorded.own.folder / "manifest.json").read_text())
    assert manifest["train"]["key"] == trained["key"] and manifest["train"]["inputs"] == trained["inputs"]


def test_wandb_run_of_what_was_found_is_as_complete(recorded: Recorded) -> None:
    made, found = recorded.made.summary, recorded.found.summary
    assert {value for name, value in found.items() if name.endswith("/how")} == {"hit"}

    def kept(summary: dict) -> dict:
        clock = ("_runtime", "_timestamp", "decisions", "results")
        return {name: value for name, value in summary.items() if name not in clock and not name.endswith(TOLD)}

    assert kept(made) == kept(found)
    assert recorded.made.table("decisions") == recorded.found.table("decisions")
    assert recorded.made.table("results") == recorded.found.table("results")
    assert len(recorded.found.artifacts) == len(recorded.made.artifacts)


def _swept(folder: Path, place: Path) -> Path:
    """Write the run's events anew, as if it had been run with another threshold."""
    begin, *rest = (folder / "metrics.jsonl").read_text().splitlines()
    event = json.loads(begin)
    event["config"]["keep"]["ifd_max"]["below"] = 0.5
    place.mkdir()
    (place / "metrics.jsonl").write_text("\n".join([json.dumps(event | {"name": "another"}), *rest]))
    return place


SHOWN = {
    "config": {"arm", "threshold/keep/ifd_max/below", "pair/teacher", "pair/student"},
    "history": {"train/step", "train/loss", "train/learning_rate", "train/grad_norm"},
    "table": {"decisions", "results", *RESULTS},
    "summary": {
        *("assemble/kept", "assemble/kept_share", "assemble/kept/both", "assemble/taken/response"),
        *("assemble/refused/ifd_too_high", "select_instruction/acceptance", "select_response/reason/challenger_won"),
        *(f"{name}/{when}/median" for name in ("ifd", "r_ifd") for when in ("before", "after")),
        *("ifd/before/above_one_share", "likelihoods/tokens_per_second", "cost/usd", "cost/usd_per_taken"),
        *("evaluate/testbed/accuracy/mean", "evaluate/testbed/accuracy/known"),
    },
}
"""What a dashboard over a whole chain shows, among others."""


def test_dashboard_asks_for_what_was_logged_and_leaves_nothing_out(recorded: Recorded, tmp_path: Path) -> None:
    board = dashboard(logged([recorded.own.folder, _swept(recorded.own.folder, tmp_path / "another")]))
    assert board.metric == "evaluate/testbed/accuracy/mean"
    run = recorded.made
    tables = {name for name, value in run.summary.items() if isinstance(value, dict) and "table" in value["_type"]}
    there = {
        "config": set(run.config),
        "history": {name for line in run.history for name in line},
        "table": tables | {name for table in tables for name in run.table(table)["columns"]},
        "summary": {name for name, value in run.summary.items() if isinstance(value, int | float)},
    }
    for where, names in SHOWN.items():
        asked = {key.name for key in board.keys if key.where == where}
        assert asked <= there[where], "a panel would stay empty"
        assert names <= asked, "a panel is missing"


def test_no_secret_is_written(recorded: Recorded) -> None:
    assert len(recorded.written) > 40
    assert not [path for path in recorded.written if PLANTED.encode() in path.read_bytes()]
