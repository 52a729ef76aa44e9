"""One process of a training: `accelerate launch ... -m srecycle.trainer.worker ORDER`, as `launch` starts it.

On several machines that share the store's folder, start it so on each of the others, with the order that the harness
wrote and the same accelerate configuration but for `machine_rank`.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from srecycle.errors import UserError
from srecycle.progress import console
from srecycle.stage import Work
from srecycle.store import Store, write_json
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.launch import DONE, ROWS, ordered_rows, rebuilt
from srecycle.trainer.sft import SupervisedTrainer

_SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def main(file: Path) -> int:
    """Train as this process's part of an order. The first process says how it went, and returns an exit code."""
    scratch = file.parent
    order = json.loads(file.read_text())
    first = int(os.environ.get("RANK", "0")) == 0
    console.quiet = not first
    threading.Thread(target=_end_with, args=(order["harness"],), daemon=True).start()
    trainer: SupervisedTrainer = rebuilt(order["trainer"])
    student: Student = rebuilt(order["student"])
    work = Work(store=Store(scratch, create=False), folder=Path(order["folder"]), scratch=scratch)
    try:
        metrics = trainer.train(_loaded(trainer, student), ordered_rows(order, scratch / ROWS), student, work)
    except UserError as error:
        if first:
            write_json(scratch / DONE, {"error": str(error)})
        return 2
    if first:
        write_json(scratch / DONE, {"metrics": metrics, "notes": work.notes})
    return 0


def _loaded(trainer: SupervisedTrainer, student: Student) -> Loaded:
    """Load the student on this process's device; on the CPU where its weights are to be shared out."""
    import torch

    if student.device == "cpu" or not torch.cuda.is_available():
        return trainer.load_to_train(replace(student, device="cpu"))
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if any(os.environ.get(name) == "true" for name in _SHARDED):
        return replace(trainer.load_to_train(replace(student, device="cpu")), device=torch.device(device))
    return trainer.load_to_train(replace(student, device=device))


def _end_with(harness: int) -> None:
    """End like by SIGTERM once the harness is gone: it would start another training on the same folder."""
    while not _gone(harness):
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _gone(process: int) -> bool:
    """Say whether a process has ended, be it that nobody has waited for it yet."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return Path("/proc").exists()  # else there is no telling
    return state in ("Z", "X")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
