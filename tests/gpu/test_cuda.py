"""On a CUDA device: the same likelihoods as on the CPU, and a training in bf16. Run with `pytest -m gpu`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from srecycle.report.runs import Run
from tests.e2e.conftest import SMALL, Make, go, make  # noqa: F401

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def test_likelihoods_on_cuda_equal_those_on_cpu(make: Make, tmp_path: Path) -> None:  # noqa: F811
    from srecycle.report.runs import read_run
    from srecycle.runner import run

    tables = []
    for device in ("cpu", "cuda"):
        settings = (*SMALL, f"student.device={device}", f"store={tmp_path / device}")
        done = read_run(run(make(*settings), {}, []))
        tables.append(pq.read_table(done.artifact("likelihoods") / "likelihoods.parquet"))
    for name in ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x"):
        assert tables[1][name].to_pylist() == pytest.approx(tables[0][name].to_pylist(), rel=1e-4)


def _stage(folder: Path, device: str, **student: Any) -> Any:
    from srecycle.engine.local import LocalEngine
    from srecycle.scorer import Scorer
    from srecycle.student import Likelihoods, PromptTemplate, Student

    return Likelihoods(
        student=Student(path=str(folder), device=device, max_length=256, **student),
        template=PromptTemplate(user="Q: {instruction}\nA:", user_with_input="Q: {instruction} {input}\nA:"),
        scorer=Scorer(reversed_request="Which question has this answer?\n{response}"),
        engine=LocalEngine(),
    )


LINES = [
    {"id": f"{x}{y}", "version": "original", "instruction": x, "input": "", "response": y, "history": []}
    for x in ("Name a fruit.", "Which fruit is red?", "Give a fruit that is healthy.", "Say it often")
    for y in (" An apple.", " The apple is a red fruit, and healthy to eat.", " No", " hi" * 60, " apple and plum")
]


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2", "plain"])
def test_inference_on_cuda_equals_that_on_cpu_in_fp32_and_is_near_it_in_bf16(
    tiny_models: Mapping[str, Path], model: str
) -> None:
    from srecycle.scorer import LIKELIHOODS

    found = {}
    for device, dtype in (("cpu", "float32"), ("cuda", "float32"), ("cuda", "bfloat16")):
        stage = _stage(tiny_models[model], device, dtype=dtype)
        inference = stage.inference(stage.student.load())
        assert inference.shares
        found[device, dtype] = list(stage.likelihoods(inference, LINES))
    for expected, exact, coarse in zip(*found.values(), strict=True):
        assert expected.status == exact.status == coarse.status == "ok"
        for name in LIKELIHOODS[:4]:
            assert getattr(exact, name) == pytest.approx(getattr(expected, name), rel=1e-4)
            assert getattr(coarse, name) == pytest.approx(getattr(expected, name), rel=0.05, abs=0.3)


def test_inference_out_of_cuda_memory_halves_its_batches_and_changes_no_value(tiny_models: Mapping[str, Path]) -> None:
    """The memory that is allowed holds a few lines of the batch, and not all: the error is the device's own."""
    import torch

    stage = _stage(tiny_models["llama"], "cuda")
    loaded = stage.student.load()
    expected = list(stage.likelihoods(stage.inference(loaded), LINES))
    long = [{**line, "response": " hi" * (100 + number % 7)} for number, line in enumerate(LINES * 200)]
    inference = stage.inference(loaded)
    inference.batch_tokens = 1_000_000
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 192 * 2**20) / total)
    try:
        found = list(stage.likelihoods(inference, [*LINES, *long]))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert inference.splits > 0 and inference.batch_tokens < 1_000_000
    assert {one.status for one in found} == {"ok"}
    for one, wanted in zip(found, expected, strict=False):
        assert one.loss_y_given_x == pytest.approx(wanted.loss_y_given_x, rel=1e-4)


def test_chain_on_cuda_in_bf16_trains_to_a_finite_loss(go: Callable[..., Run]) -> None:  # noqa: F811
    run = go(*SMALL, "student.device=cuda", "student.dtype=bfloat16")

    assert run.status == "finished" and 0 < run.metrics["train/loss/last_tenth"] < 20
