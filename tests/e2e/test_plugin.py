"""A selector from outside the package: a module, its YAML, an entry point, and no line of ours is touched."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from srecycle.report.runs import read_run
from tests.e2e.conftest import command

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

MODULE = '''\
"""Selection by length: the longer response wins."""

import numpy as np

from srecycle.config import component
from srecycle.selector import Contest, Selector


@component
class Longest(Selector):
    needs = ("response",)
    least: int = 0

    def preference(self, contest: Contest) -> np.ndarray:
        lengths = np.vectorize(len)(contest.texts["response"]).astype(float)
        return np.where(lengths >= self.least, lengths, np.nan)
'''
YAML = """\
_target_: my_selectors.Longest
least: 3
tie: incumbent
"""
ENTRY = """\
[srecycle.plugins]
mine = my_selectors
"""


def _installed(folder: Path, entry: str) -> Path:
    """Lay a distribution out as an installer does."""
    (folder / "conf/selector").mkdir(parents=True)
    (folder / "conf/selector/longest.yaml").write_text(YAML)
    (folder / "my_selectors.py").write_text(MODULE)
    metadata = folder / "my_selectors-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-selectors\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry)
    return folder


def _run(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
    process = command(
        *("--config-dir", str(folder / "conf")),
        *("data.count=24", "tracker=none", "until=assemble", "keep=[none]", "selector@selector.instruction=never"),
        *("selector@selector.response=longest", "selector.response.least=4"),
        store=store,
        cwd=folder,
    )
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def test_plugin_selector_of_under_25_lines_decides_through_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len((MODULE + YAML).splitlines()) < 25
    code, errors = _run(_installed(tmp_path / "plugin", ENTRY), tmp_path / "store", monkeypatch)
    assert code == 0, errors

    (folder,) = (tmp_path / "store/runs").iterdir()
    run = read_run(folder)
    assert "likelihoods" not in {stage["label"] for stage in run.stages}
    originals = {line["id"]: line for line in pq.read_table(run.artifact("source") / "rows.parquet").to_pylist()}
    rewritten = {
        line["id"]: line
        for line in pq.read_table(run.artifact("reflect_response") / "candidates.parquet").to_pylist()
        if line["version"] == "response"
    }
    decisions = pq.read_table(run.artifact("select_response") / "decisions.parquet").to_pylist()
    taken = set()
    for line in decisions:
        old, new = originals[line["id"]]["response"], rewritten[line["id"]]
        wins = new["status"] == "ok" and len(new["response"]) > len(old) >= 4 <= len(new["response"])
        assert line["chosen"] == ("response" if wins else "original")
        taken.add(wins)
    assert taken == {True, False} and len(decisions) == 24


def test_plugin_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _installed(tmp_path / "plugin", "[console_scripts]\nmine = my_selectors:main\n")
    code, errors = _run(folder, tmp_path / "store", monkeypatch)
    assert code == 2 and "_target_=my_selectors.Longest is refused" in errors
    assert not (tmp_path / "store/runs").exists()
