"""On a CUDA device: the same likelihoods as on the CPU, and a training in bf16. Run with `pytest -m gpu`."""

from collections.abc import Callable
from pathlib import Path

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


def test_chain_on_cuda_in_bf16_trains_to_a_finite_loss(go: Callable[..., Run]) -> None:  # noqa: F811
    run = go(*SMALL, "student.device=cuda", "student.dtype=bfloat16")

    assert run.status == "finished" and 0 < run.metrics["train/loss/last_tenth"] < 20
