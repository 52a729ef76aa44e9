"""A tiny student, rows to train it on, and one call that trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.stage import Metrics, Work
from srecycle.student import PromptTemplate, Student
from srecycle.student.model import Loaded
from srecycle.trainer.base import TrainingSet, training_set
from srecycle.trainer.sft import SupervisedTrainer

TEMPLATE = PromptTemplate(user="Q: {instruction}\nA:", user_with_input="Q: {instruction} {input}\nA:")
WORDS = ("give", "three", "tips", "for", "staying", "healthy", "and", "eat", "a", "balanced", "diet", "with", "fruits")
ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{number}",
        "instruction": " ".join(WORDS[number % 5 : number % 5 + 2 + number % 3]),
        "input": "",
        "response": " " + " ".join(WORDS[number % 7 : number % 7 + 1 + 2 * number % 9]),
        "history": [],
        "ifd": None if number == 4 else (number * 7 % 11) / 11,
        "loss_y_given_x": None if number == 2 else float(number * 5 % 7),
    }
    for number in range(11)
]
"""Eleven rows of different lengths; one without each score."""

SMALL = {"batch_size": 4, "device_batch": 4, "match": "steps", "max_steps": 5, "learning_rate": 0.01, "warmup": 0.0}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left."""

    folder: Path
    scratch: Path
    metrics: Metrics
    notes: Mapping[str, Any]

    @property
    def curve(self) -> pa.Table:
        return pq.read_table(self.folder / "curve.parquet")

    @property
    def losses(self) -> list[float]:
        losses: list[float] = self.curve["loss"].to_pylist()
        return losses

    def weights(self, file: str = "adapter/adapter_model.safetensors") -> dict[str, Any]:
        from safetensors.torch import load_file

        return dict(load_file(self.folder / file))


@dataclass
class Bench:
    """A student with its rows; `train` starts anew in a folder of its own unless it is given one."""

    student: Student
    root: Path
    rows: list[dict[str, Any]] = field(default_factory=lambda: ROWS)
    made: int = 0

    def data(self, loaded: Loaded) -> TrainingSet:
        return training_set(loaded, TEMPLATE, self.rows)

    def work(self) -> Work:
        self.made += 1
        work = Work(store=None, folder=self.root / f"f{self.made}", scratch=self.root / f"s{self.made}")  # type: ignore[arg-type]
        work.folder.mkdir()
        work.scratch.mkdir()
        return work

    def train(self, trainer: SupervisedTrainer, work: Work | None = None) -> Trained:
        work = work or self.work()
        loaded = trainer.load(self.student)
        metrics = trainer.fit(loaded, self.data(loaded), self.student, work)
        return Trained(folder=work.folder, scratch=work.scratch, metrics=metrics, notes=work.notes)


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> None:
    """Keep the libraries' own objects out of the collection that transformers asks for in every training."""
    import gc

    import trl.trainer.sft_trainer  # noqa: F401

    gc.freeze()


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> Bench:
    """Return a bench with a Llama of two layers."""
    return Bench(student=Student(path=str(tiny_models["llama"]), max_length=64, device="cpu", threads=1), root=tmp_path)


Make = Callable[..., SupervisedTrainer]


@pytest.fixture
def lora() -> Make:
    """Return a function that makes a small LoRA trainer."""
    from srecycle.trainer.lora import LoRATrainer

    return lambda **settings: LoRATrainer(**({"rank": 2} | SMALL | settings))
