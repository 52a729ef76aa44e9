"""A training in several processes: the harness writes a work order and starts `accelerate launch` on it.

The order is two files in the training's scratch folder: the components as JSON, the encoded rows as safetensors. What
comes back is JSON: metrics and notes, or what the user is to be told. Nothing is pickled between them.
"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srecycle.config import Component
from srecycle.errors import UserError
from srecycle.stage import Metrics, Work
from srecycle.store import write_json
from srecycle.student import Student
from srecycle.student.encoding import Encoded
from srecycle.trainer.base import TrainingSet

if TYPE_CHECKING:
    from srecycle.trainer.sft import SupervisedTrainer

ORDER, ROWS, DONE = "order.json", "order.safetensors", "done.json"
_GRACE_SECONDS = 120.0
"""How long processes may take to save a checkpoint when they are told to stop."""


def launched(trainer: "SupervisedTrainer", data: TrainingSet, student: Student, work: Work) -> Metrics:
    """Train in `trainer.processes` processes, and return their metrics.

    Raises UserError with what they were stopped by, or where they ended without a word.
    """
    _write_order(trainer, data, student, work)
    (work.scratch / DONE).unlink(missing_ok=True)
    process = subprocess.Popen(_command(trainer, student, work.scratch / ORDER), stdout=sys.stderr.fileno())
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait(_GRACE_SECONDS)
        raise
    if not (work.scratch / DONE).exists():
        raise UserError(
            f"the training's processes ended with exit code {code} (their own words are above): the same command goes "
            "on from the last checkpoint"
        )
    done = json.loads((work.scratch / DONE).read_text())
    if "error" in done:
        raise UserError(done["error"])
    work.notes |= done["notes"]
    return dict(done["metrics"])


def _command(trainer: "SupervisedTrainer", student: Student, order: Path) -> list[str]:
    import torch

    coarse = student.dtype == "bfloat16" and student.device != "cpu" and torch.cuda.is_available()
    how = ["--num_processes", str(trainer.processes), "--main_process_port", "0"]
    how += ["--mixed_precision", "bf16" if coarse else "no"]  # as in one process, whatever a configuration says
    if trainer.accelerate_config is not None:
        how += ["--config_file", str(trainer.accelerate_config)]
    else:  # torchrun's launcher; where there is no GPU its processes talk by gloo
        how += ["--multi_gpu", "--num_machines", "1", "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *how, "-m", "srecycle.trainer.worker", str(order)]


def _write_order(trainer: "SupervisedTrainer", data: TrainingSet, student: Student, work: Work) -> None:
    import torch
    from safetensors.torch import save_file

    sequences = data.sequences
    columns = {
        "ids": [token for one in sequences for token in one.ids],
        "lengths": [len(one.ids) for one in sequences],
        "starts": [one.target_start for one in sequences],
    }
    save_file({name: torch.tensor(values) for name, values in columns.items()}, work.scratch / ROWS)
    order = {
        "trainer": _described(trainer),
        "student": _described(student),
        "ids": list(data.ids),
        "scores": {name: list(values) for name, values in data.scores.items()},
        "folder": str(work.folder),
        "harness": os.getpid(),
    }
    write_json(work.scratch / ORDER, order)


def _described(component: Component) -> dict[str, Any]:
    values = {one.name: getattr(component, one.name) for one in fields(component)}  # type: ignore[arg-type]
    return {
        "module": type(component).__module__,
        "class": type(component).__qualname__,
        "fields": {name: str(value) if isinstance(value, Path) else value for name, value in values.items()},
    }


def rebuilt(described: dict[str, Any]) -> Any:
    """Return the component that an order describes."""
    kind = getattr(importlib.import_module(described["module"]), described["class"])
    assert issubclass(kind, Component), "an order describes components"
    return kind(**described["fields"])


def ordered_rows(order: dict[str, Any], file: Path) -> TrainingSet:
    """Return the rows of an order."""
    from safetensors.torch import load_file

    columns = {name: values.tolist() for name, values in load_file(file).items()}
    return TrainingSet(
        sequences=_sequences(columns["ids"], columns["lengths"], columns["starts"]),
        refused={},
        ids=order["ids"],
        scores=order["scores"],
    )


def _sequences(ids: Sequence[int], lengths: Sequence[int], starts: Sequence[int]) -> list[Encoded]:
    made, begin = [], 0
    for length, start in zip(lengths, starts, strict=True):
        made.append(Encoded(ids=tuple(ids[begin : begin + length]), target_start=start))
        begin += length
    return made
