"""Local copies in the layouts that people have, and data sets of the hub at their commit."""

import json
from pathlib import Path

import pytest

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.evaluator import lm_eval_data as data_sets
from srecycle.evaluator.lm_eval import LMEval
from srecycle.evaluator.lm_eval_tasks import Catalogue
from srecycle.evaluator.lm_eval_unit import Unit, run_unit

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.mark.parametrize("place", ["", "anatomy", "data", "anatomy/data"])
def test_source_finds_the_files_of_each_split(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    names = ("dev-00000-of-00001", "test-00000-of-00002", "test-00001-of-00002", "validation")
    for name in names:
        (folder / f"{name}.parquet").write_bytes(b"")
    found = data_sets.source(Catalogue().find("mmlu_anatomy"), tmp_path)
    assert found.path == "parquet" and found.files is not None and found.name is None
    assert {split: len(files) for split, files in found.files.items()} == {"dev": 1, "test": 2, "validation": 1}


def test_source_keeps_a_configuration_that_the_card_tells_of(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: anatomy\n  data_files: x.parquet\n---\nText\n")
    found = data_sets.source(Catalogue().find("mmlu_anatomy"), tmp_path)
    assert (found.path, found.name, found.files) == (str(tmp_path), "anatomy", None)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that knows one data set's commit."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "datasets--allenai--ai2_arc" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    data_sets.hub_commit.cache_clear()
    return refs


def test_hub_data_set_is_pinned_to_its_commit(cached: Path, tmp_path: Path) -> None:
    evaluator = LMEval(tasks=("arc_challenge", "hellaswag"))
    assert identity(evaluator)["data"] == {"arc_challenge": COMMIT}
    tasks = [Catalogue().find(name) for name in evaluator.tasks]
    data_sets.write_overrides(tmp_path / "pinned", [data_sets.source(one, None) for one in tasks])
    (file,) = (tmp_path / "pinned").iterdir()
    assert json.loads(file.read_text())["dataset_kwargs"] == {"revision": COMMIT}
    (cached / "main").write_text(OTHER)
    data_sets.hub_commit.cache_clear()
    assert identity(LMEval(tasks=evaluator.tasks))["data"] == {"arc_challenge": OTHER}


def test_unit_whose_data_comes_from_another_commit_is_refused() -> None:
    from datasets import Dataset, DatasetDict

    class Loaded:
        """A task as the manager gives it, with data that `datasets` downloaded at another commit."""

        dataset = DatasetDict(test=Dataset.from_list([{"question": "q"}]))

    url = f"hf://datasets/allenai/ai2_arc@{OTHER}/ARC-Challenge/test.parquet"
    Loaded.dataset["test"].info.download_checksums = {url: {"num_bytes": 1, "checksum": None}}
    manager = type("Manager", (), {"load": lambda self, names: {"tasks": {names[0]: Loaded()}}})()
    assert data_sets.used_commit(Loaded()) == OTHER

    from srecycle.evaluator.lm_eval_unit import Settings

    with pytest.raises(UserError, match=f"loaded at commit {OTHER}, but is pinned to {COMMIT}"):
        run_unit(Unit(name="arc_challenge", commit=COMMIT), manager, None, Settings())
