"""Supervised fine-tuning by TRL's SFTTrainer: what LoRA, QLoRA and full fine-tuning share.

TRL gets token ids and labels that `training_set` made, and prepares nothing itself: what is trained is what was scored,
token for token, and only targets count for the loss. Every step trains the same rows however they are laid out, so how
the global batch is split or packed, and over how many processes, is runtime, but where there is dropout: its masks are
drawn batch by batch. Identity: everything else that moves a weight.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from srecycle.config import InputPath, component, runtime
from srecycle.errors import UserError
from srecycle.progress import quiet_libraries, say
from srecycle.stage import Metrics, Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.arguments import shared_arguments
from srecycle.trainer.base import Trainer, TrainingSet
from srecycle.trainer.checkpoints import last_whole, resumed_step, saved
from srecycle.trainer.laid_out import gathered_weights
from srecycle.trainer.layout import Layout, Tokens, laid_out
from srecycle.trainer.objective import Objective, Supervised
from srecycle.trainer.order import NEEDS, Order, Passes, arranged, steps_for_tokens
from srecycle.trainer.throughput import Throughput
from srecycle.trainer.watch import require_finite, watched

_LENGTHS = ("epochs", "max_steps", "max_tokens")


@component
class SupervisedTrainer(Trainer, ABC):
    """Fine-tunes on prompts with their responses. `batch_size` is global (rows a step), `warmup` a share of all steps.

    `match` says what ends a training, so that arms of different size can be compared on equal terms: `epochs` passes
    over the rows, `max_steps` optimiser steps, or the fewest steps that read `max_tokens` tokens (prompts and targets,
    no padding). `order` is how rows stand in a pass: `shuffled`, `curriculum` (rising IFD), `rare_first` (falling
    L(y|x): far from what the student would write itself), or as in the `source`.

    `device_batch` rows, or bins where `packing`, are computed at a time. With `processes` above 1 the training runs
    under `accelerate launch`, on one device each; `accelerate_config` is its configuration file, for FSDP or DeepSpeed.
    """

    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    match: Literal["epochs", "steps", "tokens"] = "epochs"
    epochs: Annotated[float, Field(gt=0)] | None = 3.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 128
    order: Order = "shuffled"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
    packing: bool = runtime(False)
    device_batch: Annotated[int, Field(ge=1)] = runtime(8)
    checkpoint_steps: Annotated[int, Field(ge=1)] = runtime(50)
    gradient_checkpointing: bool = runtime(False)
    processes: Annotated[int, Field(ge=1)] = runtime(1)
    accelerate_config: InputPath | None = runtime(None)

    def __post_init__(self) -> None:
        """Refuse a length that decides nothing, or none where one must decide."""
        asked = self._length
        if getattr(self, asked) is None:
            raise ValueError(f"match={self.match} needs {asked}")
        for name in {"max_steps", "max_tokens"} - {asked}:
            if getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)} decides nothing with match={self.match}")
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size={self.batch_size} can't be split over processes={self.processes}")

    @property
    def _length(self) -> str:
        return {"epochs": "epochs", "steps": "max_steps", "tokens": "max_tokens"}[self.match]

    @property
    def draws_by_batch(self) -> bool:
        """Whether chance (dropout) is drawn batch by batch, so that the split of a step counts."""
        return False

    def resolved(self) -> Mapping[str, Any]:
        """Lengths that decide nothing don't count; the layout of a step does where chance is drawn by it."""
        idle = {name: None for name in _LENGTHS if name != self._length}
        layout = {"split": self.device_batch, "packing": self.packing, "processes": self.processes}
        return idle | ({"layout_under_dropout": layout} if self.draws_by_batch else {})

    @property
    def needs(self) -> tuple[str, ...]:
        """The scores that the order sorts by."""
        return NEEDS.get(self.order, ())

    def check(self, student: Student) -> None:
        """Raise UserError where this student can't be trained here."""
        super().check(student)
        if student.dtype == "float16":
            raise UserError("student.dtype=float16 can't be trained in: use bfloat16 or float32")
        if self.accelerate_config is not None:
            if self.processes == 1:
                raise UserError(f"trainer.accelerate_config={self.accelerate_config} counts with trainer.processes > 1")
            if not self.accelerate_config.is_file():
                raise UserError(f"trainer.accelerate_config={self.accelerate_config} is not a file: give a YAML file")

    def load(self, student: Student) -> Loaded:
        """Load the student; on the CPU, for its tokenizer, where other processes train it."""
        return self.load_to_train(student) if self.processes == 1 else replace(student, device="cpu").load()

    def load_to_train(self, student: Student) -> Loaded:
        """Load the student in the process that trains it."""
        return student.load()

    def passes(self, data: TrainingSet) -> Passes:
        """Arrange the rows in steps, as many as `match` asks for."""
        endless = arranged(self.order, data.ids, data.scores, batch_size=self.batch_size, seed=self.seed)
        if self.match == "epochs":
            assert self.epochs is not None
            return endless.first(math.ceil(self.epochs * endless.steps_per_pass))
        if self.match == "steps":
            assert self.max_steps is not None
            return endless.first(self.max_steps)
        assert self.max_tokens is not None
        return endless.first(steps_for_tokens(endless, [len(one.ids) for one in data.sequences], self.max_tokens))

    @abstractmethod
    def prepared(self, loaded: Loaded) -> Mapping[str, Any]:
        """Return what TRL is given to train: `model`, and `peft_config` where that is an adapter's."""

    @abstractmethod
    def save(self, model: Any, weights: Any, loaded: Loaded, student: Student, work: Work) -> None:
        """Write what was trained into `work.folder`; `weights` are the model's where processes shared them out."""

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Word what TRL and PEFT refuse of these settings."""
        yield

    def fit(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train from the last whole checkpoint, or from the start, here or in processes of their own."""
        if self.processes > 1:
            from srecycle.trainer.launch import launched

            return launched(self, data, student, work)
        return self.train(loaded, data, student, work)

    def train(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train as one of `processes` processes. The first one writes."""
        return self.train_towards(Supervised(data=data), self.prepared(loaded), loaded, student, work)

    def train_towards(
        self, objective: Objective, given: Mapping[str, Any], loaded: Loaded, student: Student, work: Work
    ) -> Metrics:
        """Train what TRL is `given`, as `prepared` returns it, towards an objective."""
        data = objective.data
        passes = self.passes(data)
        layout = self._layout(objective, passes, loaded.max_length)
        counted = objective.counted(passes, layout)
        checkpoints = work.scratch / "checkpoints"
        without_dropout(given["model"])
        with quiet_libraries():
            shared = shared_arguments(
                self,
                dtype=student.dtype,
                device=loaded.device,
                layout=layout,
                steps=passes.steps,
                checkpoints=checkpoints,
            )
            with self.refusals():
                trainer = objective.trainer(given, shared, loaded, layout, passes)
            checkpoint = last_whole(checkpoints)
            if checkpoint is None:
                objective.check_first(trainer, layout)
            work.notes["resumed_from_step"] = begun = resumed_step(checkpoint)
            with Throughput(work.notes, counted, begun):
                watched(trainer, checkpoint, passes, data.ids, work.scratch)
        require_finite(trainer.model)
        curve = _curve(objective, trainer.state.log_history, counted)
        weights = gathered_weights(trainer)
        if trainer.is_world_process_zero():
            self.save(trainer.accelerator.unwrap_model(trainer.model), weights, loaded, student, work)
            with saved(work.folder):
                work.write("curve", curve)
        return self.figures(curve, passes, counted)

    def _layout(self, objective: Objective, passes: Passes, max_length: int) -> Layout:
        layout = laid_out(
            passes,
            objective.data.sequences,
            batch_size=self.batch_size,
            device_batch=self.device_batch,
            processes=self.processes,
            packing=max_length if self.packing else None,
        )
        if not self.packing and layout.device_batch < self.device_batch:
            say(
                f"  trainer.device_batch={self.device_batch} can't split the {self.batch_size // self.processes} "
                f"{objective.unit} of a step: using {layout.device_batch}"
            )
        return layout

    def figures(self, curve: pa.Table, passes: Passes, counted: list[Tokens]) -> Metrics:
        """Return the metrics of a finished training: its length, what it read, and where its loss began and ended."""
        losses = curve["loss"].drop_null().to_pylist()
        tail = losses[-max(1, len(losses) // 10) :]
        return {
            f"matched/{self.match}": getattr(self, self._length),
            "steps": passes.steps,
            "epochs": round(passes.steps / passes.steps_per_pass, 4),
            "rows_seen": sum(len(step) for step in passes.trained()),
            "tokens_seen": sum(one.seen for one in counted),
            "target_tokens_seen": sum(one.target for one in counted),
            "loss/first": losses[0],
            "loss/last_tenth": sum(tail) / len(tail),
            **({f"order/without_{NEEDS[self.order][0]}": passes.without_score} if self.order in NEEDS else {}),
        }


def without_dropout(model: Any) -> None:
    """Turn off the student's own dropout: only what the settings say may be left to chance.

    Architectures keep it in modules (GPT-2), in their own modules' numbers (OPT, BLOOM), or read it from the config.
    """
    from torch.nn.modules.dropout import _DropoutNd
    from transformers import PretrainedConfig

    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        _zero_dropout(module)
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            for one in (config, *(part for part in vars(config).values() if isinstance(part, PretrainedConfig))):
                _zero_dropout(one)


_DROPOUT = re.compile(r"(\w+_)?(dropout|pdrop|layerdrop)(_p|_prob|_rate)?")


def _zero_dropout(holder: Any) -> None:
    for name, value in list(vars(holder).items()):
        if isinstance(value, float) and _DROPOUT.fullmatch(name):
            setattr(holder, name, 0.0)


def _curve(objective: Objective, history: list[dict[str, Any]], counted: list[Tokens]) -> pa.Table:
    lines = []
    seen = target = 0
    for logged, tokens in zip((one for one in history if "loss" in one), counted, strict=True):
        seen, target = seen + tokens.seen, target + tokens.target
        lines.append(objective.line(logged) | {"tokens": seen, "target_tokens": target})
    return pa.Table.from_pylist(lines, schema=objective.schema)
