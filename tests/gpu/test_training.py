"""Training on a CUDA device: bf16, packing, all weights, 4 bits. Run with `pytest -m gpu`."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from srecycle.student import Student
from srecycle.trainer.full import FullTrainer
from srecycle.trainer.lora import LoRATrainer
from tests.unit.trainer.conftest import SMALL, Bench

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> Bench:
    """Return a bench with a Llama of two layers on the device."""
    return Bench(student=Student(path=str(tiny_models["llama"]), max_length=64, device="cuda"), root=tmp_path)


def _lora(**settings: Any) -> LoRATrainer:
    return LoRATrainer(**({"rank": 2} | SMALL | settings))


def test_lora_on_cuda_in_fp32_has_the_cpu_s_curve(bench: Bench) -> None:
    found = bench.train(_lora())
    bench.student = replace(bench.student, device="cpu")
    assert found.losses == pytest.approx(bench.train(_lora()).losses, rel=1e-3)
    assert found.notes["peak_memory_gib"] > 0


def test_lora_on_cuda_in_bf16_is_near_fp32_and_packing_is_near_none(bench: Bench) -> None:
    exact = bench.train(_lora())
    bench.student = replace(bench.student, dtype="bfloat16")
    coarse, packed = bench.train(_lora()), bench.train(_lora(packing=True, device_batch=1))
    assert coarse.losses == pytest.approx(exact.losses, rel=0.1)
    assert packed.losses == pytest.approx(coarse.losses, rel=0.05)


def test_full_training_on_cuda_in_bf16_moves_weights_by_steps_that_bf16_would_lose(bench: Bench) -> None:
    bench.student = replace(bench.student, dtype="bfloat16")
    made = bench.train(FullTrainer(**(SMALL | {"learning_rate": 5e-4, "max_steps": 12})))
    weights, before = made.weights("model/model.safetensors"), bench.student.load().model.state_dict()
    assert made.losses[-1] < made.losses[0]
    assert not torch.equal(weights["model.norm.weight"], before["model.norm.weight"].cpu())


def test_gradient_checkpointing_on_cuda_moves_no_loss(bench: Bench) -> None:
    plain, spare = bench.train(_lora()), bench.train(_lora(gradient_checkpointing=True))
    assert spare.losses == pytest.approx(plain.losses, rel=1e-4)


def test_qlora_on_cuda_trains_and_its_adapter_is_finite(bench: Bench) -> None:
    pytest.importorskip("bitsandbytes")
    from srecycle.trainer.qlora import QLoRATrainer

    bench.student = replace(bench.student, dtype="bfloat16")
    trainer = QLoRATrainer(**(SMALL | {"max_steps": 20}))
    trainer.check(bench.student)
    made = bench.train(trainer)
    assert sum(made.losses[-4:]) < sum(made.losses[:4])
    assert all(bool(weight.isfinite().all()) for weight in made.weights().values())


def test_two_gpus_train_to_the_curve_of_one(bench: Bench) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    one, two = bench.train(_lora()), bench.train(_lora(processes=2, device_batch=2))
    assert two.losses == pytest.approx(one.losses, rel=1e-4)
