"""What stops a training, and what is left of it: kills, SIGTERM, losses that are no numbers, full disks."""

import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from srecycle.errors import UserError
from srecycle.stage import Work
from srecycle.trainer.checkpoints import FINISHED, last_whole, resumed_step
from srecycle.trainer.order import arranged
from srecycle.trainer.watch import STOPPED
from tests.unit.trainer.conftest import ROWS, Bench, Make, Trained

STEPS = {"max_steps": 12, "checkpoint_steps": 2, "dropout": 0.1}
LONGER = STEPS | {"max_steps": 20}
"""Enough to be killed in by another process."""


def _same(found: Trained, expected: Trained, file: str = "adapter/adapter_model.safetensors") -> None:
    assert found.curve.equals(expected.curve)
    mine, theirs = found.weights(file), expected.weights(file)
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _whole(scratch: Path) -> list[int]:
    return sorted(resumed_step(str(mark.parent)) for mark in scratch.glob(f"checkpoints/*/{FINISHED}"))


@contextmanager
def _once_saved(scratch: Path, act: Callable[[], None]) -> Iterator[None]:
    """Act from another thread as soon as there is a checkpoint."""

    def wait() -> None:
        while not _whole(scratch) and not done.is_set():
            time.sleep(0.003)
        act()

    done, thread = threading.Event(), threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _stopped_by_sigterm(bench: Bench, lora: Make) -> Work:
    work = bench.work()
    with _once_saved(work.scratch, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit) as ended:
        bench.train(lora(**STEPS), work)
    assert ended.value.code == 128 + signal.SIGTERM
    return work


def test_sigterm_saves_the_step_and_the_same_command_goes_on_to_the_same_end(
    bench: Bench, lora: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    work = _stopped_by_sigterm(bench, lora)
    assert signal.getsignal(signal.SIGTERM) is before
    (*_, saved) = _whole(work.scratch)
    assert f"train: stopped after step {saved}, which is saved" in capsys.readouterr().err
    assert 2 <= saved < 12 and not list(work.folder.iterdir())
    resumed = bench.train(lora(**STEPS), work)
    assert resumed.notes["resumed_from_step"] == saved
    _same(resumed, bench.train(lora(**STEPS)))


SCRIPT = """
import sys
from pathlib import Path
from srecycle.student import Student
from tests.unit.trainer.conftest import SMALL, Bench
from tests.unit.trainer.test_stops import LONGER
from srecycle.trainer.lora import LoRATrainer
bench = Bench(student=Student(path=sys.argv[1], max_length=64, device="cpu", threads=1), root=Path(sys.argv[2]))
bench.train(LoRATrainer(**({"rank": 2} | SMALL | LONGER)))
"""


@pytest.mark.slow  # test_resume.py kills without another process
def test_kill_at_a_random_step_resumes_to_the_same_curve_and_weights(bench: Bench, lora: Make) -> None:
    expected = bench.train(lora(**LONGER))
    root = bench.root / "killed"
    root.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, bench.student.path, str(root)], cwd=Path(__file__).parents[3]
    )
    at = random.Random(os.getpid()).randrange(2, 7)
    limit = time.monotonic() + 120
    while process.poll() is None and max(_whole(root / "s1"), default=0) < at:
        assert time.monotonic() < limit, "no checkpoint came"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the training ended before it was killed after step {at}"
    bench.root, bench.made = root, 0
    work = Work(store=None, folder=root / "f1", scratch=root / "s1")  # type: ignore[arg-type]
    resumed = bench.train(lora(**LONGER), work)
    assert 2 <= resumed.notes["resumed_from_step"] < 20
    _same(resumed, expected)


@pytest.mark.slow
def test_resume_passes_over_a_checkpoint_that_was_not_written_to_its_end(bench: Bench, lora: Make) -> None:
    work = _stopped_by_sigterm(bench, lora)
    newest = Path(str(last_whole(work.scratch / "checkpoints")))
    (newest / FINISHED).unlink()
    (newest / "adapter_model.safetensors").write_bytes(b"torn")
    (*_, saved) = _whole(work.scratch)
    resumed = bench.train(lora(**STEPS), work)
    assert resumed.notes["resumed_from_step"] == saved < resumed_step(str(newest))
    _same(resumed, bench.train(lora(**STEPS)))


class _Acts:
    """What a pickle can do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_resume_runs_nothing_that_a_checkpoint_holds(bench: Bench, lora: Make, file: str) -> None:
    work = _stopped_by_sigterm(bench, lora)
    checkpoint = Path(str(last_whole(work.scratch / "checkpoints")))
    (checkpoint / file).write_bytes(pickle.dumps(_Acts(bench.root / "acted")))
    with pytest.raises(UserError, match=rf"{checkpoint.name} holds more than numbers, or is damaged: remove it"):
        bench.train(lora(**STEPS), work)
    assert not (bench.root / "acted").exists()


def test_loss_that_is_no_number_names_step_and_rows_and_keeps_the_last_good_checkpoint(
    bench: Bench, lora: Make
) -> None:
    work, trainer = bench.work(), lora(learning_rate=1e30, checkpoint_steps=1, max_steps=9)
    says = r"training stopped: the (loss|grad_norm) is (nan|inf) at step \d, on rows r\d"
    with pytest.raises(UserError, match=says) as stopped:
        bench.train(trainer, work)
    told = json.loads((work.scratch / STOPPED).read_text())
    data = bench.data(bench.student.load())
    expected = arranged("shuffled", data.ids, {}, batch_size=4, seed=0).at(told["step"])
    assert told["rows"] == [data.ids[row] for row in expected]
    kept = last_whole(work.scratch / "checkpoints")
    assert resumed_step(kept) == told["step"] - 1 or (told["step"] == 1 and kept is None)
    if kept:
        from safetensors.torch import load_file

        assert all(bool(one.isfinite().all()) for one in load_file(f"{kept}/adapter_model.safetensors").values())
        assert f"The checkpoint of step {resumed_step(kept)} is kept" in str(stopped.value)
    assert not list(work.folder.iterdir())


def test_loss_that_is_no_number_before_any_checkpoint_does_not_speak_of_one(bench: Bench, lora: Make) -> None:
    with pytest.raises(UserError, match=r"No checkpoint was written before, and a run with other settings is new"):
        bench.train(lora(learning_rate=1e30, checkpoint_steps=50))


def test_student_whose_loss_is_no_number_is_refused_before_the_first_step(bench: Bench, lora: Make) -> None:
    loaded = bench.student.load()
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    work = bench.work()
    with pytest.raises(UserError, match=r"training can't begin: the student's loss is nan on the first rows \(r\d"):
        lora().fit(loaded, bench.data(loaded), bench.student, work)
    assert not (work.scratch / "checkpoints").exists() or not _whole(work.scratch)


def test_full_disk_is_told_and_the_earlier_checkpoint_stays_usable(bench: Bench, lora: Make) -> None:
    """The limit on a file's size fails a write halfway, as a full disk does."""
    work, limits = bench.work(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    try:
        with (
            _once_saved(work.scratch, fill),
            pytest.raises(
                UserError, match=r"the checkpoint of step \d+ can't be written to .*the one of step \d+ is whole"
            ),
        ):
            bench.train(lora(**STEPS), work)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (*_, saved) = _whole(work.scratch)
    names = {folder.name for folder in (work.scratch / "checkpoints").iterdir()}
    assert names <= {f"checkpoint-{step}" for step in _whole(work.scratch)}
    resumed = bench.train(lora(**STEPS), work)
    assert resumed.notes["resumed_from_step"] == saved
    _same(resumed, bench.train(lora(**STEPS)))


def test_packed_rows_that_see_each_other_are_refused(bench: Bench, lora: Make) -> None:
    """A student that ignores position ids: its attention runs over the borders of packed rows."""
    loaded = bench.student.load()
    forward = loaded.model.model.forward
    loaded.model.model.forward = lambda *args, position_ids=None, **kwargs: forward(
        *args, position_ids=None if position_ids is None else torch.arange(position_ids.shape[1])[None], **kwargs
    )
    with pytest.raises(UserError, match=r"trainer.packing: this student's rows see each other when packed"):
        lora(packing=True).fit(loaded, bench.data(loaded), bench.student, bench.work())
    bench.rows = [{**ROWS[0], "id": "long", "response": " give" * 10}, *ROWS]  # fills the first bin alone
    alone = lora(packing=True, device_batch=1, order="source")
    with pytest.raises(UserError, match=r"trainer.packing: this student's rows see each other when packed"):
        alone.fit(loaded, bench.data(loaded), bench.student, bench.work())
