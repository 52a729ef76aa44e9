"""Weights that aren't whole are refused before anything is paid for."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from huggingface_hub import constants

from srecycle.errors import UserError
from srecycle.student import Student
from srecycle.student.weights import lacking


def _index(folder: Path, *names: str) -> None:
    content = {"weight_map": {str(number): name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def _sharded(folder: Path) -> None:
    """The weights as one of two shards, the other missing."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    _index(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def _whole_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    _index(folder, "model-00001-of-00001.safetensors")


BREAK: Mapping[str, tuple[Callable[[Path], object], str | None]] = {
    "whole": (lambda folder: None, None),
    "whole shards": (_whole_shards, None),
    "missing": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "pickled": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "no model.safetensors but pytorch_model.bin, a pickle, which is never loaded: save it as safetensors",
    ),
    "a shard missing": (
        _sharded,
        "no model-00002-of-00002.safetensors, which model.safetensors.index.json names",
    ),
    "torn": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100]),
        "model.safetensors: ",
    ),
    "index is a list": (lambda folder: (folder / "model.safetensors.index.json").write_text("[1]"), None),
    "index is torn": (lambda folder: (folder / "model.safetensors.index.json").write_bytes(b"\xff{"), None),
}


@pytest.mark.parametrize("state", BREAK)
def test_lacking_names_what_a_folder_lacks(tiny_models: Mapping[str, Path], tmp_path: Path, state: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_models["llama"], folder)
    damage, reason = BREAK[state]
    damage(folder)
    found = lacking(folder)
    assert (found is None) == (reason is None) and (found or "").startswith(reason or "")
    if reason:
        with pytest.raises(UserError, match=r"can't be loaded: .*; if it was copied or saved only in part"):
            Student(path=str(folder), device="cpu").check()
    else:
        Student(path=str(folder), device="cpu").check()


def test_hub_student_whose_download_was_cut_is_refused_while_the_hub_is_off(
    tiny_models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hub at hand the rest is downloaded when the model is loaded, so that is no reason to refuse it."""
    commit = "a" * 40
    place = tmp_path / "models--org--model"
    shutil.copytree(tiny_models["llama"], place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    Student(path="org/model", device="cpu").check()
    (place / "snapshots" / commit / "model.safetensors").unlink()
    with pytest.raises(UserError, match=rf"no model\.safetensors; .*`hf download org/model --revision {commit}`"):
        Student(path="org/model", device="cpu").check()
    student = Student(path="org/model", device="cpu")
    assert student.resolved()["hub_revision"] == commit
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    student.check()
