"""The student's identity, and what is said where it can't be loaded."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student


def _key(path: Path, **fields: object) -> str:
    return fingerprint(identity(Student(path=str(path), **fields)))  # type: ignore[arg-type]


def test_identity_is_the_folders_content(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_models["llama"], copy)
    assert _key(copy) == _key(tiny_models["llama"])
    (copy / "README.md").write_text("changes nothing")
    assert _key(copy) == _key(tiny_models["llama"])
    assert _key(copy, device="cpu", threads=1) == _key(copy)
    (copy / "tokenizer_config.json").write_text((copy / "tokenizer_config.json").read_text() + " ")
    assert _key(copy) != _key(tiny_models["llama"])
    assert (
        len({_key(copy), _key(copy, dtype="bfloat16"), _key(copy, max_length=64), _key(copy, attention="eager")}) == 4
    )


def test_load_length_is_cut_to_what_the_model_takes(tiny_models: Mapping[str, Path]) -> None:
    assert Student(path=str(tiny_models["llama"]), max_length=4096).load().max_length == 256
    assert Student(path=str(tiny_models["llama"]), max_length=64).load().max_length == 64


def test_load_folder_in_the_home_is_found(
    tiny_models: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_models["llama"], tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Student(path="~/model").load().max_length == 256


@pytest.mark.parametrize("path", ["/no/such/folder", "./nowhere", "~/nowhere", "a/b/c"])
def test_identity_missing_folder_is_refused_and_never_replaced(path: str) -> None:
    with pytest.raises(UserError, match="is not a folder: give a model folder, or a hub id"):
        identity(Student(path=path))


def test_identity_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.json"):
        identity(Student(path=str(tmp_path)))


def test_identity_hub_id_offline_is_refused_with_the_reason() -> None:
    with pytest.raises(
        UserError, match="nobody/nothing is not a folder, nor in the local hub cache, and the hub is off"
    ):
        identity(Student(path="nobody/nothing"))


def test_load_damaged_weights_are_a_user_error(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_models["llama"], copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be loaded"):
        Student(path=str(copy)).load()


def test_load_missing_device_is_a_user_error(tiny_models: Mapping[str, Path]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match="sees no CUDA device"):
        Student(path=str(tiny_models["llama"]), device="cuda").load()
