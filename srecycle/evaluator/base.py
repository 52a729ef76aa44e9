"""What an evaluator is, and the stage that runs it.

In: the student, its adapter (or none), and the training set. Out: metrics in the record, and the evaluator's own files.
Each evaluator is a stage of its own, so changing one leaves training and the others as they are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from srecycle.config import Component, component, runtime
from srecycle.progress import quiet_libraries
from srecycle.selector import Assemble
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Student, Template
from srecycle.student.model import Loaded
from srecycle.trainer import Train
from srecycle.trainer.base import adapter_folder


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated. `training` holds the assembled table; `adapter` is None for the untuned student."""

    student: Student
    template: Template
    adapter: Path | None
    training: pa.Table

    def load(self) -> Loaded:
        """Load the student with its adapter applied, not merged."""
        loaded = self.student.load()
        if self.adapter is None:
            return loaded
        from peft import PeftModel

        with quiet_libraries():
            model = PeftModel.from_pretrained(loaded.model, self.adapter).eval()
        return Loaded(model=model, tokenizer=loaded.tokenizer, device=loaded.device, max_length=loaded.max_length)


@component
class Evaluator(Component, ABC):
    """Measures a subject."""

    def check(self) -> None:
        """Raise UserError where the evaluation can't succeed (an unknown task), before hours are spent on the rest."""
        return

    @abstractmethod
    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Return metrics by name (`TASK/METRIC`, standard errors as `TASK/METRIC_stderr`); write details to files."""


@component
class NoEvaluator(Evaluator):
    """Measures nothing."""

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Return no metrics."""
        return {}


@component
class Evaluate(Stage):
    """Runs one evaluator; `label` is its name in the configuration."""

    label: str = runtime()
    evaluator: Evaluator
    trained: Train
    training: Assemble

    @property
    def name(self) -> str:
        """The stage's name."""
        return "evaluate"

    def check(self) -> None:
        """Refuse to start what can't be evaluated in the end."""
        self.evaluator.check()

    def run(self, work: Work) -> Metrics:
        """Evaluate the trained student."""
        subject = Subject(
            student=self.trained.student,
            template=self.trained.template,
            adapter=adapter_folder(work.read(self.trained).folder),
            training=work.read(self.training).table("training"),
        )
        return self.evaluator.evaluate(subject, work)
