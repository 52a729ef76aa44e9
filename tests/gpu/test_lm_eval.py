"""On a CUDA device: the same benchmark figures as on the CPU, in batches that fit. Run with `pytest -m gpu`."""

from pathlib import Path

import pytest

from srecycle.evaluator.lm_eval import LMEval
from tests.unit.evaluator.benchmarks import subject, work, write_adapter, write_benchmarks, write_student

pytestmark = pytest.mark.gpu


def test_lm_eval_on_cuda_equals_that_on_cpu_with_batches_found_by_itself(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    data = write_benchmarks(tmp_path / "data", items=40)
    student = write_student(tmp_path / "student")
    adapter = write_adapter(tmp_path / "adapter", student)
    evaluator = LMEval(tasks=("truthfulqa_mc2",), data={"truthfulqa_mc2": data["truthfulqa_mc2"]})

    found = {
        device: evaluator.evaluate(subject(student, adapter, device=device), work(tmp_path / device))
        for device in ("cpu", "cuda")
    }

    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-3)
