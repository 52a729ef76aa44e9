"""Training in two processes on the CPU: the same global batch gives the same curve."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from srecycle.errors import UserError
from srecycle.stage import Work
from srecycle.trainer.checkpoints import FINISHED, last_whole, resumed_step
from srecycle.trainer.launch import ordered_rows, rebuilt
from srecycle.trainer.worker import _gone
from tests.unit.trainer.conftest import SMALL, Bench, Make
from tests.unit.trainer.test_stops import _same

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
from srecycle.errors import UserError
from srecycle.student import Student
from tests.unit.trainer.conftest import Bench
from tests.unit.trainer.test_processes import TWO
from srecycle.trainer.lora import LoRATrainer
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
bench = Bench(student=Student(path=sys.argv[1], max_length=64, device="cpu", threads=1), root=Path(sys.argv[2]))
try:
    bench.train(LoRATrainer(**TWO))
except UserError as error:
    sys.exit(str(error))
"""
TWO: dict[str, Any] = {"rank": 2} | SMALL | {"max_steps": 400, "checkpoint_steps": 10, "processes": 2, "dropout": 0.1}


def _begun(bench: Bench) -> tuple[subprocess.Popen[str], Work]:
    """Start a training in another process, and return once it has a checkpoint."""
    root = bench.root / "harness"
    root.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, bench.student.path, str(root)],
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        text=True,
    )
    work = Work(store=None, folder=root / "f1", scratch=root / "s1")  # type: ignore[arg-type]
    limit = time.monotonic() + 120
    while process.poll() is None and not list(work.scratch.glob(f"checkpoints/*/{FINISHED}")):
        assert time.monotonic() < limit, "no checkpoint came"
        time.sleep(0.01)
    return process, work


@slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_two_processes_end_with_their_harness_and_go_on_to_the_same_weights(
    bench: Bench, lora: Make, how: signal.Signals
) -> None:
    process, work = _begun(bench)
    process.send_signal(how)
    process.communicate(timeout=120)  # waits for the pipe, which its processes hold, and only then for itself
    assert process.returncode == (128 + how if how == signal.SIGTERM else -how)
    limit = time.monotonic() + 60
    while _workers(work.scratch):
        assert time.monotonic() < limit, "its processes went on without it"
        time.sleep(0.1)
    (*_, last) = sorted(work.scratch.glob("checkpoints/*"), key=lambda folder: resumed_step(str(folder)))
    assert (last / FINISHED).exists() and (last / "rng_state_1.pth").exists()
    assert not (work.scratch / "done.json").exists() and not list(work.folder.iterdir())
    resumed = bench.train(lora(**TWO), work)
    assert resumed.notes["resumed_from_step"] == resumed_step(str(last)) < 400
    _same(resumed, bench.train(lora(**TWO)))


@slow
def test_two_processes_of_which_one_is_killed_are_told_of_and_the_training_stays_resumable(bench: Bench) -> None:
    process, work = _begun(bench)
    os.kill(_workers(work.scratch)[-1], signal.SIGKILL)
    _, told = process.communicate(timeout=120)
    assert "the training's processes ended with exit code 1" in told and "goes on from the last checkpoint" in told
    assert process.returncode == 1 and last_whole(work.scratch / "checkpoints")


def _workers(scratch: Path) -> list[int]:
    """Return the running processes that train by the order in this folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(scratch / "order.json") in command and "accelerate" not in command:
            found.append(int(file.parent.name))
    return found


def test_harness_that_nobody_has_waited_for_is_gone() -> None:
    """It stands among the processes until its parent asks for its exit code, which may be long after."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not _gone(process.pid) and not _gone(os.getpid())
    process.kill()
    limit = time.monotonic() + 30
    while not _gone(process.pid):
        assert time.monotonic() < limit, "it counts as running"
        time.sleep(0.01)
    assert process.returncode is None and process.wait() == -signal.SIGKILL and _gone(process.pid)


@pytest.mark.parametrize("file", CONFIGS, ids=[file.stem for file in CONFIGS])
def test_accelerate_configuration_is_one_that_accelerate_reads(file: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = load_config_from_file(str(file))
    assert found.distributed_type.value == yaml.safe_load(file.read_text())["distributed_type"]
    assert found.fsdp_config or found.deepspeed_config
