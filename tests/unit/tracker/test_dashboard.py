"""Dashboards: which panels follow from what runs have logged."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.tracker.__main__ import main
from srecycle.tracker.dashboard import Dashboard, Panel, dashboard
from srecycle.tracker.logged import Logged, logged

MEAN = "evaluate/testbed/accuracy/mean"
SUMMARY = {
    "scores/scored": 9,
    "assemble/kept": 5,
    "assemble/kept_share": 0.5,
    "assemble/kept/original": 0,
    "assemble/kept/response": 5,
    "assemble/kept/ifd/median": 0.5,
    "assemble/taken/response": 6,
    "assemble/refused/ifd_too_high": 1,
    "assemble/note": "words",
    "evaluate/testbed/accuracy/known": 0.25,
    MEAN: 0.5,
    "evaluate/testbed/accuracy_stderr/mean": 0.1,
    "cost/usd": 1.5,
}


def write_run(
    store: Path,
    name: str,
    *,
    group: str = "g",
    below: float = 0.9,
    teacher: str = "scripted",
    summary: Mapping[str, Any] = SUMMARY,
    ended: bool = True,
) -> Path:
    """Write what a run has logged."""
    begin = {
        "event": "run",
        "id": name,
        "name": "arm",
        "group": group,
        "choices": {"teacher": teacher, "student": "hf", "selector@selector.response": "ifd"},
        "overrides": [],
        "config": {"keep": {"ifd_max": {"below": below}}, "trainer": {"seed": 1}},
        "keys": {},
    }
    stage = {"event": "stage", "stage": "x", "key": "k", "how": "run", "seconds": 1.0, "metrics": {}, "artifact": {}}
    shown = {"figures": {"ifd/before/median": 0.5, "x/tokens_per_second": 7.0}, "tables": {"decisions": {}}}
    curve = {"event": "curve", "stage": "train", "step": 1, "loss": 0.5, "grad_norm": None, "time": 0.0}
    end = {"event": "end", "status": "finished", "summary": dict(summary)}
    folder = store / "runs" / name
    folder.mkdir(parents=True)
    lines = [begin, stage | shown, curve, *([end] if ended else [])]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _named(board: Dashboard, section: str) -> dict[str, Panel]:
    (found,) = [one for one in board.sections if one.title == section]
    return {panel.title: panel for panel in found.panels}


def _found(tmp_path: Path) -> Logged:
    runs = [write_run(tmp_path, f"r{number}", below=below) for number, below in enumerate((0.8, 0.9, 0.9))]
    return logged([*runs, write_run(tmp_path, "other", group="h", teacher="openai", below=0.1)], "g")


def test_names_are_read_from_what_was_logged(tmp_path: Path) -> None:
    found = _found(tmp_path)
    assert found.runs == 3 and found.config["threshold/keep/ifd_max/below"] == (0.8, 0.9)
    assert found.config["pair/teacher"] == ("scripted",), "another group's runs are left out"
    assert found.figures == ("evaluate/testbed/accuracy/known", MEAN)
    assert {"assemble/kept", "x/seconds", "ifd/before/median"} <= set(found.summary)
    assert "assemble/note" not in found.summary
    assert found.curves == ("train/step", "train/loss") and found.tables == ("decisions", "results")


def test_run_that_was_killed_counts_with_what_it_logged(tmp_path: Path) -> None:
    found = logged([write_run(tmp_path, "killed", ended=False)])
    assert found.runs == 1 and found.figures == () and found.tables == ("decisions",)


def test_dashboard_has_a_curve_for_every_threshold_that_was_varied(tmp_path: Path) -> None:
    panels = _named(dashboard(_found(tmp_path)), "Thresholds")
    curve = panels[f"{MEAN} by keep.ifd_max.below"]
    assert curve.kind == "scatter" and curve.x and curve.x.name == "threshold/keep/ifd_max/below"
    assert not [title for title in panels if "margin" in title or "seed" in title]


def test_dashboard_shows_composition_curves_cost_pairs_and_rows(tmp_path: Path) -> None:
    board = dashboard(_found(tmp_path))
    kept = _named(board, "Composition")["What is trained on"]
    assert [key.name for key in kept.y] == ["assemble/kept/original", "assemble/kept/response"]
    assert set(_named(board, "Training")) == {"train/loss"}, "what was never measured has no curve"
    assert "Tokens per second" in _named(board, "Cost") and "decisions" in _named(board, "Rows")
    (pairs,) = [one for one in _named(board, "Teachers and students").values() if one.kind == "pairs"]
    assert [key.name for key in pairs.y] == ["teacher", "student", "arm", "figure", "value"]
    parallel = _named(board, "Results")["Settings and what came of them"]
    assert [key.name for key in parallel.y] == ["threshold/keep/ifd_max/below", "assemble/kept_share", MEAN]


def test_dashboard_compares_by_a_mean_unless_told_otherwise(tmp_path: Path) -> None:
    found = _found(tmp_path)
    assert dashboard(found).metric == MEAN
    assert dashboard(found, metric="cost/usd").metric == "cost/usd"
    with pytest.raises(UserError, match=rf"no run has logged cost/eur.*such as .*{MEAN}"):
        dashboard(found, metric="cost/eur")


def test_dashboard_of_runs_that_evaluated_nothing_goes_by_rows_kept(tmp_path: Path) -> None:
    assert dashboard(logged([write_run(tmp_path, "a", summary={"assemble/kept": 3})])).metric == "assemble/kept"
    with pytest.raises(UserError, match="choose a number with --metric"):
        dashboard(logged([write_run(tmp_path, "b", summary={"scores/scored": 3})]))


def test_dry_run_prints_the_dashboard_and_says_what_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "a")
    sweep = tmp_path / "sweeps" / "g"
    sweep.mkdir(parents=True)
    (sweep / "plan.json").write_text('{"metric": "assemble/kept"}')
    asked = ["--store", str(tmp_path), "--group", "g", "--project", "p", "--dry-run"]
    assert main(asked) == 0
    told = capsys.readouterr()
    content = json.loads(told.out)
    assert content["project"] == "p" and content["metric"] == "assemble/kept", "what the sweep itself goes by"
    assert "summary:assemble/kept" in content["sections"][0]["panels"][0]["y"]
    assert "srecycle[dashboards]" in told.err and "wandb login" in told.err
    assert main([*asked, "--metric", MEAN]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == MEAN


def test_dashboard_without_runs_or_without_a_key_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb_workspaces")
    assert main(["--store", str(tmp_path)]) == 2
    write_run(tmp_path, "a")
    assert main(["--store", str(tmp_path), "--group", "nobody"]) == 2
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main(["--store", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and all(line.startswith("srecycle-dashboard: error: ") for line in lines)
    assert "has no run that logged" in lines[0] and "of group nobody" in lines[1] and "--dry-run" in lines[2]


def test_dashboard_without_its_library_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, "a")
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["--store", str(tmp_path)]) == 2
    assert "pip install 'srecycle[dashboards]'" in capsys.readouterr().err
