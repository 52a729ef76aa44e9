"""What an evaluator is, and the stage that runs it.

In: the student, its adapter (or none), and the training set. Out: metrics in the record, and the evaluator's own files.
Each evaluator is a stage of its own, so changing one leaves training and the others as they are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from srecycle.assemble import Assemble
from srecycle.config import Component, component, runtime
from srecycle.engine import Engine
from srecycle.engine.local import HERE
from srecycle.progress import quiet_libraries
from srecycle.reflection.quote import Quote
from srecycle.stage import Metrics, Stage, Work
from srecycle.store import Artifact, Store
from srecycle.student import Student, Template
from srecycle.student.model import Loaded
from srecycle.trainer import Train
from srecycle.trainer.base import adapter_folder, model_folder


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: the student with what a training made of it.

    That is an `adapter`, or a whole `model` where all weights were trained, or neither for the untuned student.
    `training` holds the assembled table. `engine` is what answers are generated with.
    """

    student: Student
    template: Template
    adapter: Path | None
    training: pa.Table
    model: Path | None = None
    engine: Engine = HERE

    @property
    def is_trained(self) -> bool:
        """Whether this is another model than the student."""
        return self.adapter is not None or self.model is not None

    def load(self, merged: bool = False) -> Loaded:
        """Load the student as it was trained: with its adapter applied, or all weights in its place.

        `merged`: with the adapter merged, as a further round of training has it. That generates faster, and differs in
        the last bits from what other harnesses compute with an adapter.
        """
        made = self.model or (self.adapter if merged else None)
        loaded = (self.student.trained(made.parent) if made else self.student).load()
        if self.adapter is None or merged:
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

    def check_student(self, student: Student) -> None:
        """Raise UserError where what is to be trained of this student can't be evaluated in the end."""
        return

    def quote(self, subject: Subject | None, store: Store) -> Quote | None:
        """Return what would have to be asked and paid for; None where nobody is asked. Writes nothing.

        Without a subject it is still to be trained.
        """
        return None

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
    engine: Engine = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return "evaluate"

    def check(self) -> None:
        """Refuse to start what can't be evaluated in the end."""
        self.engine.check()
        self.evaluator.check()
        self.evaluator.check_student(self.trained.student)

    def run(self, work: Work) -> Metrics:
        """Evaluate the trained student."""
        return self.evaluator.evaluate(self._subject(work.read(self.trained), work.read(self.training)), work)

    def quote(self, store: Store) -> Quote | None:
        """Return what the evaluator would have to ask and pay for; None where it asks nobody."""
        trained, training = (store.find(stage.name, stage.key) for stage in (self.trained, self.training))
        return self.evaluator.quote(self._subject(trained, training) if trained and training else None, store)

    def _subject(self, trained: Artifact, training: Artifact) -> Subject:
        return Subject(
            student=self.trained.student,
            template=self.trained.template,
            adapter=adapter_folder(trained.folder),
            training=training.table("training"),
            model=model_folder(trained.folder),
            engine=self.engine,
        )
