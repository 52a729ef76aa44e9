"""Dashboards as W&B gets them: by wandb-workspaces, and by its client over HTTP."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from srecycle.tracker.dashboard import Dashboard, dashboard
from srecycle.tracker.labels import RESULTS
from srecycle.tracker.logged import logged
from srecycle.tracker.workspace import PAIRS, Libraries, Views
from tests.unit.tracker.test_dashboard import MEAN, write_run
from tests.wandb_server import ENTITY, WandbServer

pytest.importorskip("wandb_workspaces")

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def board(tmp_path: Path) -> Dashboard:
    for number, (below, teacher) in enumerate(((0.8, "scripted"), (0.9, "openai"))):
        write_run(tmp_path, f"r{number}", below=below, teacher=teacher)
    return dashboard(logged((tmp_path / "runs").iterdir()), group="g")


def _views(board: Dashboard, chart: str | None = "somebody/srecycle-pairs") -> Views:
    return Views(Libraries(), board, entity=ENTITY, project="p", chart=chart)


def _specifications(views: Views) -> list[Any]:
    models = (views.workspace()._to_model(), views.report(by_name=False)._to_model())
    return [json.loads(model.model_dump_json(by_alias=True, exclude_none=True)) for model in models]


def _leaves(node: Any, name: str) -> Iterator[Any]:
    """Yield what stands under a name, anywhere."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            yield from _leaves(value, name)
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, name)


def test_workspace_and_report_ask_for_every_name_of_the_dashboard(board: Dashboard) -> None:
    for told in _specifications(_views(board)):
        text = json.dumps(told)
        for key in board.keys:
            assert json.dumps(key.name)[1:-1] in text, key
        axes = {one for name in ("accessor", "xAxis", "yAxis") for one in _leaves(told, name)}
        assert {"config:threshold/keep/ifd_max/below.value", f"summary:{MEAN}", "train/step"} <= axes
        for one in axes:
            config = re.fullmatch(r"config:(.*)\.value", one)
            assert "." not in (config[1] if config else one), "W&B reads a dot as the way into a nested value"
        assert "pair/teacher.value" in set(_leaves(told, "groupBy"))
        assert '"group"' in text and '"g"' in text, "only the group's runs are shown"


def test_panels_stand_side_by_side_and_never_on_one_another(board: Dashboard) -> None:
    workspace, report = _specifications(_views(board))
    grids = [list(_leaves(one, "layout")) for told in (workspace, report) for one in _leaves(told, "panels")]
    assert max(len(grid) for grid in grids) > 4
    for grid in grids:
        taken = [
            (x, y)
            for one in grid
            for x in range(one["x"], one["x"] + one["w"])
            for y in range(one["y"], one["y"] + one["h"])
        ]
        assert len(taken) == len(set(taken)) and all(x < 24 for x, _ in taken)


def test_heat_map_is_drawn_over_columns_that_runs_log(board: Dashboard) -> None:
    asked = set(re.findall(r"\$\{field:(\w+)\}", json.dumps(PAIRS)))
    assert asked and asked <= set(RESULTS)
    for told in _specifications(_views(board)):
        (fields,), (strings,) = list(_leaves(told, "fieldSettings")), list(_leaves(told, "stringSettings"))
        assert asked <= set(fields) and set(fields.values()) <= set(RESULTS)
        assert set(re.findall(r"\$\{string:(\w+)\}", json.dumps(PAIRS))) <= set(strings)
        assert strings["figure"] == MEAN
    assert not [one for told in _specifications(_views(board, None)) for one in _leaves(told, "fieldSettings")]


def _published(store: Path, server: WandbServer) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    asked = [sys.executable, "-m", "srecycle.tracker", "--store", str(store), "--group", "g", "--project", "p"]
    given = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": server.url, "HOME": str(store)}
    return subprocess.run(asked, env=own | given, capture_output=True, text=True, check=False, timeout=120)


def test_dashboard_is_saved_by_wandbs_own_client(board: Dashboard, tmp_path: Path) -> None:
    with WandbServer() as server:
        done = _published(tmp_path, server)
    assert done.returncode == 0, done.stderr
    report, workspace = server.views
    assert (report["type"], workspace["type"]) == ("runs", "project-view")
    assert report["displayName"] == workspace["displayName"] == "Selective reflection: g"
    assert {one["entityName"] for one in server.views} == {ENTITY}
    assert f"{server.url}/{ENTITY}/p" in done.stderr
    (chart,) = server.charts
    assert json.loads(chart["spec"]) == PAIRS
    assert f"{ENTITY}/srecycle-pairs" in set(_leaves(report["spec"], "panelDefId"))
    assert not server.unknown


@pytest.mark.slow
def test_server_that_refuses_is_told_of_in_a_line(board: Dashboard, tmp_path: Path) -> None:
    with WandbServer(refuses=("createCustomChart",)) as server:
        done = _published(tmp_path, server)
    assert done.returncode == 0 and "without the heat map" in done.stderr and len(server.views) == 2
    with WandbServer(refuses=("upsertView",)) as server:
        done = _published(tmp_path, server)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "srecycle-dashboard: error: W&B refused the dashboard (input: permission denied)"
    ]
