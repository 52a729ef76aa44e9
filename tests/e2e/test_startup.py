"""What commands load that compute nothing: a run that is found whole, a plan, and help."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from srecycle.report.runs import read_run
from tests.e2e.conftest import SMALL, Go, command, ran
from tests.offline_runs import offline_run

pytestmark = pytest.mark.e2e

MODELS = {"torch", "transformers", "trl", "peft", "lm_eval", "datasets", "accelerate", "sklearn"}
"""Libraries that take seconds to load."""


def _loaded(monkeypatch: pytest.MonkeyPatch, *arguments: str, store: Path) -> tuple[str, set[str]]:
    """Run the command to its end; return what it printed, and every module that it loaded."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    process = command(*arguments, store=store)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    modules = set(re.findall(r"^import time: +\d+ \| +\d+ \| *(\S+)$", errors, flags=re.MULTILINE))
    assert "hydra.main" in modules
    return output, modules


def _libraries(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_help_loads_hydra_and_nothing_that_builds_or_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, modules = _loaded(monkeypatch, "--help", store=tmp_path / "store")
    assert "selector: always" in output
    assert not _libraries(modules) & (MODELS | {"wandb", "pandas", "pyarrow", "numpy", "pydantic", "rich"})


def test_plan_loads_no_model_library_and_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, modules = _loaded(monkeypatch, "mode=plan", store=tmp_path / "store")
    assert "evaluate/testbed" in output and "pyarrow" in modules
    assert not _libraries(modules) & (MODELS | {"wandb"})


def test_run_found_whole_loads_no_model_library_and_leaves_a_whole_wandb_run(
    tmp_path: Path, go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    first = go(*SMALL)

    _, modules = _loaded(monkeypatch, *SMALL, "tracker=wandb", "tracker.mode=offline", store=store)

    (folder,) = set((store / "runs").iterdir()) - {first.folder}
    again = read_run(folder)
    assert not ran(again) and again.status == "finished" and again.metrics == first.metrics
    assert (folder / "report.html").is_file()
    assert "wandb" in modules and not _libraries(modules) & MODELS
    assert "wandb.sdk.launch" not in modules, "W&B's launcher takes as long as W&B itself"
    assert "opentelemetry.sdk" not in modules, "W&B's telemetry looks for its server, though the run is offline"

    logged = offline_run(next(folder.glob("wandb/offline-run-*")))
    assert logged.about["exit_code"] == 0 and logged.summary["status"] == "finished"
    assert [
        name for name, value in first.metrics.items() if value is not None and logged.summary.get(name) != value
    ] == []
    assert [line["train/step"] for line in logged.history if "train/loss" in line] == [1, 2, 3, 4]
    assert logged.table("decisions")["data"] and logged.config["cfg"]["keep"]
    assert {"source", "scores", "assemble", "train"} <= {one["name"].rpartition("-")[0] for one in logged.artifacts}


_WATCHED = """
import gc, sys
from srecycle import __main__ as command
command._plan = lambda experiment: print(gc.isenabled(), gc.get_freeze_count() > 0)
sys.argv = ["srecycle", "mode=plan"]
command.main()
"""


def test_job_runs_with_garbage_collected_though_composing_is_spared_it() -> None:
    done = subprocess.run([sys.executable, "-c", _WATCHED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
