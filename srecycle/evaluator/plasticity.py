"""How well the student still learns: a new task, before and after some steps of training on it.

In: the student before fine-tuning and after it, and samples of a task that is new to both. Out, for either: loss (nats
per token) and accuracy on held-back samples of the task, at the `start` and, once the trainer had its steps on the
others, at the `end`; `plasticity.parquet` has a line a sample. The evaluated student itself stays as it is. What a loss
of plasticity is, beside how far training moved the student (evaluator `drift`), see Lyle et al. 2023, arXiv:2303.01486.

Accuracy is the share of samples whose answer, its end included, greedy decoding would write exactly: each of its tokens
is the likeliest one after those before it.
"""

import gc
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from srecycle.config import component
from srecycle.data import Data
from srecycle.errors import UserError
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.progress import say
from srecycle.rows import ROW_SCHEMA, to_table
from srecycle.stage import Metrics, Work
from srecycle.store import write_json
from srecycle.student import Student, Template
from srecycle.trainer import Trainer
from srecycle.trainer.base import training_set

Rows = Sequence[dict[str, Any]]
Measured = Mapping[str, Sequence[float]]
"""`loss` and `correct` (0 or 1) of every held-back sample, in order."""


@component
class Plasticity(Evaluator):
    """Trains both students on `task` by `trainer`, and examines them on `test_rows` samples of it, drawn by `seed`."""

    task: Data
    trainer: Trainer
    test_rows: Annotated[int, Field(ge=2)] = 100
    seed: int = 0

    def check(self) -> None:
        """Raise UserError where there is no task, too little of it, or no training on it."""
        self._split()
        if not self.trainer.trains:
            raise UserError("the evaluator plasticity wants a trainer that trains: choose another than none for it")
        if not self.trainer.trains_merged:
            raise UserError(
                "the evaluator plasticity trains the student with its adapter merged in, which its trainer can't: "
                "choose trainer@evaluator.plasticity.trainer=lora, or full"
            )
        if self.trainer.needs or self.trainer.which_pairs:
            wanted = f"scores ({', '.join(self.trainer.needs)})" if self.trainer.needs else "preference pairs"
            raise UserError(
                f"the evaluator plasticity has samples of a task to train on, and its trainer needs {wanted} beside "
                "them: choose trainer.order=shuffled or source, and a trainer that learns from samples alone"
            )

    def check_student(self, student: Student) -> None:
        """Raise UserError where the trainer can't train this student here."""
        self.trainer.check(student)

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Train and examine the student that it was, then the one that it became."""
        students = {"before": subject.student, "after": _tuned(subject)}
        found: dict[str, Mapping[str, Measured]] = {}
        ids: list[str] = []
        for name, student in students.items():
            if name == "after" and not subject.is_trained:
                found[name] = found["before"]
                continue
            say(f"  plasticity: the student {name} fine-tuning")
            ids, found[name] = self._learnt(student, subject.template, work, scratch=work.scratch / name)
        if not ids:
            return {"reason": "no_usable_test_rows"}
        work.write("plasticity", _table(ids, found))
        return {"rows": len(ids), "train_rows": len(self._split()[0])} | _figures(found)

    def _split(self) -> tuple[Rows, Rows]:
        """Return the samples to train on, and those to examine with. Raises UserError where there are too few."""
        rows: list[dict[str, Any]] = to_table(self.task.rows(), ROW_SCHEMA).to_pylist()
        if len(rows) <= self.test_rows:
            raise UserError(
                f"the task of evaluator plasticity, {self.task.description}, has {len(rows)} samples: test_rows="
                f"{self.test_rows} leaves none to train on; lower it, or give more"
            )
        held_back = set(random.Random(self.seed).sample(range(len(rows)), self.test_rows))
        return (
            [row for place, row in enumerate(rows) if place not in held_back],
            [row for place, row in enumerate(rows) if place in held_back],
        )

    def _learnt(
        self, student: Student, template: Template, work: Work, *, scratch: Path
    ) -> tuple[list[str], Mapping[str, Measured]]:
        """Return the samples' ids and a student's results at the start and the end; finished ones survive a kill."""
        train, test = self._split()
        kept = scratch / "results.json"
        if not kept.exists():
            ids, start = examined(student, template, test)
            end = start
            if ids:
                tuned = self._trained(student, template, train, work, scratch=scratch)
                _, end = examined(tuned, template, test)
            scratch.mkdir(exist_ok=True)
            write_json(kept, {"ids": ids, "results": {"start": start, "end": end}})
        told = json.loads(kept.read_text())
        return told["ids"], told["results"]

    def _trained(self, student: Student, template: Template, train: Rows, work: Work, *, scratch: Path) -> Student:
        made, checkpoints = scratch / "made", scratch / "training"
        shutil.rmtree(made, ignore_errors=True)  # a kill leaves it half-written; the training's own work is elsewhere
        for folder in (made, checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        loaded = self.trainer.load(student)
        data = training_set(loaded, template, train)
        if not data.sequences:
            why = ", ".join(sorted(set(data.refused.values())))
            raise UserError(f"the task of evaluator plasticity leaves nothing to train on: all was refused ({why})")
        self.trainer.fit(loaded, data, student, Work(store=work.store, folder=made, scratch=checkpoints))
        del loaded
        gc.collect()  # two models at once may be one too many
        return student.trained(made)


def examined(student: Student, template: Template, test: Rows) -> tuple[list[str], Measured]:
    """Return the ids of the samples that can be asked, and the student's results on them; it is loaded for that."""
    from srecycle.student.inference import Inference, found_budget  # imports torch, which planning must not

    loaded = student.load()
    data = training_set(loaded, template, test)
    losses = Inference(loaded, found_budget(loaded)).token_losses(data.sequences, [True] * len(data.sequences))
    if any(one is None or one.ranks is None or not np.isfinite(one.mean) for one in losses):
        raise UserError(
            "the evaluator plasticity can't examine the student: its losses are no numbers, or memory lacks"
        )
    told = [one for one in losses if one is not None and one.ranks is not None]
    return list(data.ids), {
        "loss": [one.mean for one in told],
        "correct": [float(np.all(one.ranks == 1)) for one in told],
    }


def _tuned(subject: Subject) -> Student:
    folder = subject.model or subject.adapter
    return subject.student.trained(folder.parent) if folder else subject.student


def _table(ids: Sequence[str], found: Mapping[str, Mapping[str, Measured]]) -> pa.Table:
    columns = {
        f"{name}_{moment}_{figure}": values
        for name, results in found.items()
        for moment, measured in results.items()
        for figure, values in measured.items()
    }
    return pa.table({"id": ids, **columns})


def _figures(found: Mapping[str, Mapping[str, Measured]]) -> Metrics:
    """Return means with standard errors; `change` is what fine-tuning did to the end, sample by sample."""
    metrics: Metrics = {}
    for figure, source in (("loss", "loss"), ("accuracy", "correct")):
        for name, results in found.items():
            for moment, measured in results.items():
                metrics |= _mean(f"{figure}/{name}_{moment}", np.array(measured[source]))
        ends = [np.array(found[name]["end"][source]) for name in ("after", "before")]
        metrics |= _mean(f"{figure}/change", ends[0] - ends[1])
    return metrics


def _mean(name: str, values: npt.NDArray[np.float64]) -> Metrics:
    error = {f"{name}_stderr": float(values.std(ddof=1) / np.sqrt(len(values)))} if len(values) > 1 else {}
    return {name: float(values.mean()), **error}
