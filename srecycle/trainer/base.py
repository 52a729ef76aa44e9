"""What a trainer is, and the stage that runs it (step 6 of the method).

In: the training set, of which only kept rows count. Out: `adapter/` (safetensors), `curve.parquet`, and counts of what
was trained on and what could not be, with reasons. A training set with nothing to train on is an error, not a run.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import Turn
from srecycle.selector import Assemble
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Student
from srecycle.student.encoding import Encoded, anchor_ids, encode, token_ids
from srecycle.student.model import Loaded
from srecycle.student.template import UNRENDERABLE, Template, UnrenderableError, end_ids

CURVE_SCHEMA = pa.schema(
    [
        pa.field("step", pa.int64(), False),
        pa.field("epoch", pa.float64()),
        pa.field("loss", pa.float64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("grad_norm", pa.float64()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """Encoded rows in order (the target of each is what is trained on), and why others are missing, by row id."""

    sequences: Sequence[Encoded]
    refused: dict[str, str]


@component
class Trainer(Component, ABC):
    """Fine-tunes a student."""

    trains: ClassVar[bool] = True

    @abstractmethod
    def fit(self, loaded: Loaded, data: TrainingSet, base: Mapping[str, str | None], work: Work) -> Metrics:
        """Train, write `adapter/` and `curve.parquet` into `work.folder`, and return deterministic metrics.

        `base` names the base model in the adapter. Checkpoints live in `work.scratch`, and a killed training goes on
        from the last one. Raises UserError where training can't go on (a loss that is not finite).
        """


@component
class NoTrainer(Trainer):
    """Trains nothing: the student as it is, for the untuned baseline."""

    trains: ClassVar[bool] = False

    def fit(self, loaded: Loaded, data: TrainingSet, base: Mapping[str, str | None], work: Work) -> Metrics:
        """Never called: the stage makes an artifact without an adapter."""
        raise AssertionError("NoTrainer does not train")


@component
class Train(Stage):
    """Fine-tunes the student on the kept rows."""

    training: Assemble
    trainer: Trainer
    student: Student
    template: Template

    @property
    def name(self) -> str:
        """The stage's name."""
        return "train"

    def check(self) -> None:
        """Refuse to start on a device that isn't there."""
        self.student.check()

    def run(self, work: Work) -> Metrics:
        """Encode the kept rows, and train on them."""
        if not self.trainer.trains:
            return {"rows": 0}
        table = work.read(self.training).table("training")
        kept = table.filter(table["kept"]).to_pylist()
        if not kept:
            reasons = Counter(table["reason"].to_pylist())
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
            raise UserError(f"nothing to train on: none of {len(table)} rows was kept ({why}); loosen the keep filters")
        loaded = self.student.load()
        data = training_set(loaded, self.template, kept)
        if not data.sequences:
            why = ", ".join(f"{count} {reason}" for reason, count in Counter(data.refused.values()).items())
            raise UserError(f"nothing to train on: all {len(kept)} kept rows were refused ({why})")
        metrics = self.trainer.fit(loaded, data, self.student.base, work)
        return {
            "rows": len(data.sequences),
            **{f"refused/{why}": count for why, count in sorted(Counter(data.refused.values()).items())},
            "context_truncated": sum(sequence.context_lost > 0 for sequence in data.sequences),
            "target_tokens": sum(sequence.target_tokens for sequence in data.sequences),
            **metrics,
        }


def training_set(loaded: Loaded, template: Template, kept: Sequence[dict[str, Any]]) -> TrainingSet:
    """Encode rows for training: the prompt as context; the response, its end and one EOS as target.

    Rows whose response is empty, that the template can't write, or that are so long that none of the prompt fits beside
    the response, are refused with that reason. Other contexts that don't fit are cut at their far side, as in scoring:
    the prompt never pushes the response out.
    """
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
    encoded = [
        encode(anchor, context, (*target, *end), loaded.max_length)
        for context, target in zip(contexts, targets, strict=True)
    ]
    refused |= {identifier: "too_long" for identifier, one in zip(ids, encoded, strict=True) if one.context_gone}
    return TrainingSet(sequences=[one for one in encoded if not one.context_gone], refused=refused)


def adapter_folder(folder: Path) -> Path | None:
    """Return the adapter of a training's artifact, or None where nothing was trained."""
    adapter = folder / "adapter"
    return adapter if adapter.is_dir() else None
