"""What a trainer is, and the stage that runs it (step 6 of the method).

In: the training set, of which only kept rows count, and for trainers that learn from them the preference pairs. Out:
`adapter/`, or `model/` where all weights were trained (each safetensors, tokenizer and a model card), `curve.parquet`,
and counts of what was trained on and what could not be, with reasons. Nothing to train on is an error, not a run.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from srecycle.assemble import Assemble
from srecycle.config import Component, component, identity
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import Turn
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Student
from srecycle.student.encoding import Encoded, anchor_ids, encode, token_ids
from srecycle.student.model import Loaded
from srecycle.student.template import UNRENDERABLE, Template, UnrenderableError, end_ids
from srecycle.trainer.card import lineage, write_card
from srecycle.trainer.checkpoints import saved
from srecycle.trainer.pairs import PairSet, Which, found_pairs, pair_set
from srecycle.trainer.preferences import Preferences

CURVE_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), False),
        pa.field("epoch", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("grad_norm", pa.float64()),
        pa.field("tokens", pa.int64()),
        pa.field("target_tokens", pa.int64()),
    ]
)
"""One line an optimiser step: `loss` is its mean over target tokens (nats), `tokens` and `target_tokens` what was read
from the start to here, padding not counted."""

SCORES = ("ifd", "loss_y_given_x")
"""The columns of a training table that orders sort by."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Encoded rows in order (the target of each is what is trained on), and why others are missing, by row id.

    `ids` and `scores` (columns by name, None where a row has no score) stand in the order of `sequences`. `pairs` are
    there for a trainer that learns from them, and `sequences` for one that learns from rows.
    """

    sequences: Sequence[Encoded]
    refused: dict[str, str]
    ids: Sequence[str]
    scores: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    pairs: PairSet | None = None


@component
class Trainer(Component, ABC):
    """Fine-tunes a student."""

    trains: ClassVar[bool] = True
    methods: ClassVar[tuple[str, ...]] = ("sft",)
    """What it does, in order: "sft" learns to write responses, "dpo" to prefer one of two."""
    trains_merged: ClassVar[bool] = True
    """Whether it can train a student with adapters merged in, as a student has from the second round on."""

    @property
    def reads_rows(self) -> bool:
        """Whether it learns from the training set's kept rows."""
        return "sft" in self.methods

    @property
    def which_pairs(self) -> Which | None:
        """The preference pairs that it learns from; None is none."""
        return None

    @property
    def needs(self) -> tuple[str, ...]:
        """The scores that the training set's rows must have, by the names that selectors use."""
        return ()

    def check(self, student: Student) -> None:
        """Raise UserError where this can't train the student here, before anything is paid for."""
        student.check()

    def load(self, student: Student) -> Loaded:
        """Load the student as it is trained."""
        return student.load()

    @abstractmethod
    def fit(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train, write `adapter/` or `model/` and `curve.parquet` into `work.folder`; return deterministic metrics.

        `loaded` is `student` as `load` gave it. Checkpoints live in `work.scratch`, and a killed training goes on from
        the last one. Raises UserError where training can't go on (a loss that is not finite, a full disk).
        """


@component
class NoTrainer(Trainer):
    """Trains nothing: the student as it is, for the untuned baseline."""

    trains: ClassVar[bool] = False

    def check(self, student: Student) -> None:
        """Nothing is asked of the student."""

    def fit(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Never called: the stage makes an artifact without an adapter."""
        raise AssertionError("NoTrainer does not train")


@component
class Train(Stage):
    """Fine-tunes the student on the kept rows, on preference pairs, or on both."""

    training: Assemble
    trainer: Trainer
    student: Student
    template: Template
    preferences: Preferences | None = None

    @property
    def name(self) -> str:
        """The stage's name."""
        return "train"

    def check(self) -> None:
        """Refuse to start where this student can't be trained so."""
        self.trainer.check(self.student)

    def run(self, work: Work) -> Metrics:
        """Encode what the trainer learns from, and train on it."""
        if not self.trainer.trains:
            return {"rows": 0}
        kept = self._kept(work) if self.trainer.reads_rows else []
        lines, counts = self._lines(work)
        loaded = self.trainer.load(self.student)
        data = training_set(loaded, self.template, kept)
        if kept and not data.sequences:
            why = ", ".join(f"{count} {reason}" for reason, count in Counter(data.refused.values()).items())
            raise UserError(f"nothing to train on: all {len(kept)} kept rows were refused ({why})")
        if self.trainer.which_pairs:
            data = replace(data, pairs=pair_set(loaded, self.template, lines, counts))
        metrics = self.trainer.fit(loaded, data, self.student, work)
        metrics = {**(_counts(data) if kept else {}), **(data.pairs.metrics if data.pairs else {}), **metrics}
        with saved(work.folder):
            write_card(
                work.folder, self.student, identity(self.trainer), lineage(self), metrics, methods=self.trainer.methods
            )
        return metrics

    def _kept(self, work: Work) -> list[dict[str, Any]]:
        table = work.read(self.training).table("training")
        kept = table.filter(table["kept"]).to_pylist()
        if not kept:
            reasons = Counter(table["reason"].to_pylist())
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
            raise UserError(f"nothing to train on: none of {len(table)} rows was kept ({why}); loosen the keep filters")
        return list(kept)

    def _lines(self, work: Work) -> tuple[list[dict[str, Any]], Metrics]:
        """Return the pairs to train on as texts, and counts of all."""
        which = self.trainer.which_pairs
        if which is None:
            return [], {}
        assert self.preferences is not None, "the plan has preferences where the trainer learns from pairs"
        made = work.read(self.preferences)
        lines, counts = found_pairs(made.table("preferences"), which)
        apart = "not_comparable/instruction_phase"
        return lines, {**counts, apart: made.metrics[apart]}


def _counts(data: TrainingSet) -> Metrics:
    return {
        "rows": len(data.sequences),
        **{f"refused/{why}": count for why, count in sorted(Counter(data.refused.values()).items())},
        "context_truncated": sum(sequence.context_lost > 0 for sequence in data.sequences),
        "target_tokens": sum(sequence.target_tokens for sequence in data.sequences),
    }


def training_set(loaded: Loaded, template: Template, kept: Sequence[dict[str, Any]]) -> TrainingSet:
    """Encode rows for training: the prompt as context; the response, its end and one EOS as target.

    Rows are refused, with a reason, where the response is empty or leaves no token to predict, where the template can't
    write them, and where they are so long that none of the prompt fits beside the whole response. Other contexts that
    don't fit are cut at their far side, as in scoring: the prompt never pushes the response out.
    """
    rows = {row["id"]: row for row in kept}
    assert len(rows) == len(kept), "ids of a training set are unique"
    tokenizer, wording = loaded.tokenizer, template.bound(loaded.tokenizer)
    refused = {row["id"]: "empty_response" for row in kept if not row["response"].strip()}
    prompts, completions = dict[str, str](), dict[str, str]()
    for row in kept:
        if row["id"] in refused:
            continue
        history = tuple(Turn(**turn) for turn in row["history"])
        try:
            prompts[row["id"]] = wording.prompt(row["instruction"], row["input"], history)
            completions[row["id"]] = wording.completion(row["response"])
        except UnrenderableError as error:
            if UNRENDERABLE not in refused.values():
                say(f"  warning: row {row['id']} is left out, and others like it: {error}")
            refused[row["id"]] = UNRENDERABLE
    ids = [identifier for identifier in prompts if identifier not in refused]
    contexts = token_ids(tokenizer, [prompts[identifier] for identifier in ids])
    targets = token_ids(tokenizer, [completions[identifier] for identifier in ids], continuing=True, plain=True)
    anchor, end = anchor_ids(tokenizer), end_ids(wording, tokenizer)
    encoded = dict[str, Encoded]()
    for identifier, context, target in zip(ids, contexts, targets, strict=True):
        one = encode(anchor, context, (*target, *end), loaded.max_length)
        if reason := _refusal(one, target):
            refused[identifier] = reason
        else:
            encoded[identifier] = one
    return TrainingSet(
        sequences=list(encoded.values()),
        refused=refused,
        ids=list(encoded),
        scores={name: [rows[identifier].get(name) for identifier in encoded] for name in SCORES},
    )


def _refusal(sequence: Encoded, target: Sequence[int]) -> str:
    if not target:
        return "empty_response"
    if sequence.context_gone or sequence.truncated:
        return "too_long"
    return "" if sequence.target_tokens else "nothing_to_predict"


def adapter_folder(folder: Path) -> Path | None:
    """Return the adapter of a training's artifact, or None where there is none (nothing, or all was trained)."""
    adapter = folder / "adapter"
    return adapter if adapter.is_dir() else None


def model_folder(folder: Path) -> Path | None:
    """Return the whole model of a training's artifact, or None where not all weights were trained."""
    model = folder / "model"
    return model if model.is_dir() else None
