"""Hydra's launchers: jobs in processes of their own over one store, compared when all have ended."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from srecycle.report.runs import read_runs
from tests.e2e.conftest import SMALL, command
from tests.offline_runs import offline_run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LAUNCHERS = {
    "joblib": ("hydra.launcher.n_jobs=2",),
    "submitit_local": ("hydra.launcher.timeout_min=10",),
    "ray": ("+hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.num_cpus=2"),
}
UNTRAINED = (
    *("data.count=24", "selector@selector.instruction=never", "selector@selector.response=random"),
    *("keep=[response_reflected_only]", "until=assemble", "tracker=jsonl"),
)


@pytest.fixture(params=LAUNCHERS)
def launched(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return what chooses a launcher, where it is installed."""
    if importlib.util.find_spec(f"hydra_plugins.hydra_{request.param.partition('_')[0]}_launcher") is None:
        pytest.skip(f"the launcher {request.param} is not installed")
    return (f"hydra/launcher={request.param}", *LAUNCHERS[request.param])


def test_sweep_in_processes_makes_every_stage_once_and_is_compared(launched: tuple[str, ...], tmp_path: Path) -> None:
    store = tmp_path / "store"
    settings = [*(one for one in SMALL if not one.startswith("tracker")), "tracker=wandb", "tracker.mode=offline"]
    process = command("-m", *launched, *settings, "keep.ifd_max.below=0.9,1.0", store=store, cwd=tmp_path)
    output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors

    runs = read_runs(store)
    assert [run.status for run in runs] == ["finished"] * 2
    (group,) = {run.group for run in runs}
    made = Counter(str(stage["key"]) for run in runs for stage in run.stages if stage["how"] != "hit")
    assert set(made.values()) == {1}, "two jobs made the same"
    assert len([stage for run in runs for stage in run.stages if stage["how"] == "hit"]) >= 5, (
        "what is shared is shared"
    )
    assert len(list(store.glob("artifacts/train/*/record.json"))) == 2
    assert not list(store.glob("artifacts/*/*/.work")) and (store / "sweeps" / group / "report.html").is_file()
    assert "ifd_max.below=0.9" in output and "ifd_max.below=1.0" in output
    for run in runs:
        (offline,) = run.folder.glob("wandb/offline-run-*")
        read = offline_run(offline)
        assert read.summary["status"] == "finished" and read.about["run_id"] == run.id
        assert len([line for line in read.history if "train/loss" in line]) == 4
        assert json.loads((run.folder / "manifest.json").read_text()).keys() == {stage["label"] for stage in run.stages}


def test_job_that_fails_in_another_process_is_told_of_at_the_end(launched: tuple[str, ...], tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = command("-m", *launched, *UNTRAINED, "selector.response.p=0.5,7.0,1.0", store=store, cwd=tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 2, errors
    told = [line for line in errors.splitlines() if line.startswith("failed: ")]
    assert len(told) == 1 and "selector.response.p=7.0: Input should be less than or equal to 1" in told[0]
    assert {run.status for run in read_runs(store)} == {"finished"} and len(read_runs(store)) == 2
    assert "response.p=0.5" in output and "response.p=1.0" in output
