"""Training in two processes on the CPU: the same global batch gives the same curve."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from srecycle.errors import UserError
from srecycle.trainer.checkpoints import FINISHED
from srecycle.trainer.launch import ordered_rows, rebuilt
from tests.unit.trainer.conftest import Bench, Make

slow = pytest.mark.slow
"""Each of these starts processes that import torch, twice."""
CONFIGS = sorted((Path(__file__).parents[3] / "srecycle" / "trainer" / "accelerate").glob("*.yaml"))


@slow
def test_two_processes_train_to_the_same_curve_and_weights_as_one(bench: Bench, lora: Make) -> None:
    """Three rows in the last step of a pass: one process has two of them, and the other a filler beside its one."""
    settings = {"device_batch": 1, "max_steps": 7, "checkpoint_steps": 3}
    one = bench.train(lora(**settings))
    two = bench.train(lora(**settings, processes=2))
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    assert two.metrics.keys() == one.metrics.keys() and two.metrics["tokens_seen"] == one.metrics["tokens_seen"]
    mine, theirs = two.weights(), one.weights()
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-4) for name in mine)
    assert two.notes["tokens_with_padding"] > 0
    assert (two.folder / "adapter" / "tokenizer.json").is_file()
    order = json.loads((two.scratch / "order.json").read_text())
    assert rebuilt(order["trainer"]) == lora(**settings, processes=2) and rebuilt(order["student"]) == bench.student
    data = bench.data(bench.student.load())
    again = ordered_rows(order, two.scratch / "order.safetensors")
    assert [one.ids for one in again.sequences] == [one.ids for one in data.sequences]
    assert (again.ids, again.scores) == (data.ids, data.scores)


@slow
def test_two_processes_packed_train_to_the_same_curve_as_one(bench: Bench, lora: Make) -> None:
    one = bench.train(lora(max_steps=4))
    two = bench.train(lora(max_steps=4, processes=2, packing=True, device_batch=1))
    assert two.losses == pytest.approx(one.losses, abs=1e-5)


@slow
def test_two_processes_loss_that_is_no_number_comes_back_as_one_error(bench: Bench, lora: Make) -> None:
    with pytest.raises(UserError, match=r"training stopped: the (loss|grad_norm) is (nan|inf) at step \d, on rows r\d"):
        bench.train(lora(learning_rate=1e30, processes=2))


SCRIPT = """
import signal, sys
from pathlib import Path
from srecycle.student import Student
from tests.unit.trainer.conftest import SMALL, Bench
from srecycle.trainer.lora import LoRATrainer
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
bench = Bench(student=Student(path=sys.argv[1], max_length=64, device="cpu", threads=1), root=Path(sys.argv[2]))
settings = {"rank": 2} | SMALL | {"max_steps": 400, "checkpoint_steps": 10, "processes": 2}
bench.train(LoRATrainer(**settings))
"""


@slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_two_processes_end_with_their_harness_and_leave_a_whole_checkpoint(bench: Bench, how: signal.Signals) -> None:
    root = bench.root / "harness"
    root.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, bench.student.path, str(root)], cwd=Path(__file__).parents[3]
    )
    checkpoints = root / "s1" / "checkpoints"
    limit = time.monotonic() + 120
    while process.poll() is None and not list(checkpoints.glob(f"*/{FINISHED}")):
        assert time.monotonic() < limit, "no checkpoint came"
        time.sleep(0.01)
    process.send_signal(how)
    assert process.wait(60) == (128 + how if how == signal.SIGTERM else -how)
    limit = time.monotonic() + 60
    while _workers(root):
        assert time.monotonic() < limit, "its processes went on without it"
        time.sleep(0.1)
    last = max(checkpoints.glob("*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    assert (last / FINISHED).exists() and (last / "rng_state_1.pth").exists()
    assert not (root / "s1" / "done.json").exists() and not list((root / "f1").iterdir())


def _workers(root: Path) -> list[str]:
    """Return the running processes that work on an order in this folder."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [one for one in commands if str(root / "s1" / "order.json") in one]


@pytest.mark.parametrize("file", CONFIGS, ids=[file.stem for file in CONFIGS])
def test_accelerate_configuration_is_one_that_accelerate_reads(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(file))
    assert found.distributed_type.value == yaml.safe_load(file.read_text())["distributed_type"]
    assert found.fsdp_config or found.deepspeed_config
