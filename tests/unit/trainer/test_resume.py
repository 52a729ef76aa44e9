"""A training that is killed at a random step ends as one that was not, whatever it trains and however."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.stage import Work
from srecycle.student import Student
from srecycle.trainer import Trainer
from srecycle.trainer.chosen import ChosenTrainer
from srecycle.trainer.full import FullTrainer
from srecycle.trainer.lora import LoRATrainer
from tests.unit.trainer.conftest import SMALL
from tests.unit.trainer.paired_bench import PairedBench, dpo
from tests.unit.trainer.test_stops import _same, _whole

SETTINGS: dict[str, Any] = SMALL | {"max_steps": 8, "checkpoint_steps": 2, "schedule": "cosine"}
TRAINERS: dict[str, Trainer] = {
    "packed": LoRATrainer(**SETTINGS, rank=2, dropout=0.1, packing=True),
    "curriculum": LoRATrainer(**SETTINGS, rank=2, order="curriculum"),
    "rare_first": LoRATrainer(**(SETTINGS | {"device_batch": 2}), rank=2, order="rare_first"),
    "full": FullTrainer(**SETTINGS),
    "chosen": ChosenTrainer(**SETTINGS, rank=2, dropout=0.1),
    "dpo": dpo(**SETTINGS, sft_weight=0.5),
}
SLOW = ("curriculum", "full", "chosen", "rare_first")


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> PairedBench:
    student = Student(path=str(tiny_models["llama"]), max_length=64, device="cpu", threads=1)
    return PairedBench(student=student, root=tmp_path)


class Killed(BaseException):
    """Nothing catches it."""


def _killed(bench: PairedBench, trainer: Any, passes: int) -> Work:
    """Train until the student has read that many micro-batches, and no further."""
    work, loaded, read = bench.work(), trainer.load(bench.student), 0

    def count(*_: object) -> None:
        nonlocal read
        read += 1
        if read > passes:
            raise Killed

    loaded.model.register_forward_pre_hook(count)
    with pytest.raises(Killed):
        trainer.fit(loaded, bench.data(loaded), bench.student, work)
    return work


@pytest.mark.parametrize("name", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in TRAINERS])
def test_training_killed_at_a_random_step_goes_on_to_the_same_curve_and_weights(bench: PairedBench, name: str) -> None:
    trainer: Any = TRAINERS[name]
    file = "model/model.safetensors" if name == "full" else "adapter/adapter_model.safetensors"
    # A step of pairs is read twice, by the student and by its reference.
    at = random.Random().randrange(9, 13) if name == "dpo" else random.Random().randrange(5, 8)
    work = _killed(bench, trainer, at)
    assert not list(work.folder.iterdir())
    (*_, saved) = _whole(work.scratch)
    resumed, expected = bench.train(trainer, work), bench.train(trainer)
    assert resumed.notes["resumed_from_step"] == saved > 0, f"killed in pass {at}"
    _same(resumed, expected, file)
