"""A training that was stopped between its last step and its artifact, or that can't write what it made."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.stage import Work
from srecycle.student import Student
from srecycle.trainer.full import FullTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.sft_dpo import SFTThenDPOTrainer
from tests.unit.trainer.conftest import SMALL
from tests.unit.trainer.paired_bench import PairedBench, dpo

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> PairedBench:
    student = Student(path=str(tiny_models["llama"]), max_length=64, device="cpu", threads=1)
    return PairedBench(student=student, root=tmp_path)


SETTINGS: dict[str, Any] = SMALL | {"device_batch": 2, "checkpoint_steps": 2}
LORA = LoRATrainer(**SETTINGS, rank=2, dropout=0.1, merge=True)
PHASED = SFTThenDPOTrainer(sft=LoRATrainer(**SETTINGS, rank=2), dpo=dpo(**SETTINGS))


def _written(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _emptied(work: Work) -> Work:
    """Do what the store does before work goes on."""
    shutil.rmtree(work.folder)
    work.folder.mkdir()
    return Work(store=work.store, folder=work.folder, scratch=work.scratch)


@pytest.mark.parametrize("trainer", [LORA, FullTrainer(**SETTINGS), PHASED], ids=["lora", "full", "sft_dpo"])
def test_training_resumed_at_its_end_trains_nothing_and_leaves_the_same_bytes(bench: PairedBench, trainer: Any) -> None:
    """Five steps of four out of eleven rows end in the middle of a pass."""
    work = bench.work()
    expected = _written(bench.train(trainer, work).folder)
    again = bench.train(trainer, _emptied(work))
    assert again.notes["resumed_from_step"] == again.metrics["steps"] == 5
    assert _written(again.folder) == expected


@pytest.mark.parametrize(
    ("trainer", "files"),
    [
        (LORA, ("adapter/adapter_model.safetensors", "merged/model.safetensors", "curve.parquet")),
        (FullTrainer(**SETTINGS), ("model/model.safetensors",)),
        (dpo(**SETTINGS), ("curve.parquet",)),
    ],
    ids=["lora", "full", "dpo"],
)
def test_what_can_not_be_written_at_the_end_is_told_and_is_not_trained_again(
    bench: PairedBench, trainer: Any, files: tuple[str, ...]
) -> None:
    """A folder stands where the file belongs: like a full disk, it fails the write and nothing else."""
    work = bench.work()
    for file in files:
        (work.folder / file / "stands").mkdir(parents=True)
        with pytest.raises(UserError, match=r"what was trained can't be written to .*; the last checkpoint is whole"):
            bench.train(trainer, work)
        work = _emptied(work)
    again = bench.train(trainer, work)
    assert again.notes["resumed_from_step"] == 5 and all((again.folder / file).is_file() for file in files)
