"""Direct preference optimisation (arXiv:2305.18290) by TRL's DPOTrainer, on what the student took against what it beat.

In: the pairs of stage `preferences`. A low-rank adapter is trained; the reference is the student without it, so there
is no second model. Out: as of supervised training; `curve.parquet` has TRL's rewards beside the loss.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from srecycle.config import component
from srecycle.progress import quiet_libraries, say
from srecycle.stage import Metrics, Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.arguments import on_one_device, shared_arguments
from srecycle.trainer.base import CURVE_SCHEMA, TrainingSet
from srecycle.trainer.checkpoints import last_whole, resumed_step, saved
from srecycle.trainer.layout import Tokens, laid_out
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.order import NEEDS
from srecycle.trainer.paired import FIGURES, REFERENCE, check_first_pairs, count_pair_tokens, dpo_trainer, step_line
from srecycle.trainer.pairs import Which
from srecycle.trainer.sft import without_dropout
from srecycle.trainer.throughput import Throughput
from srecycle.trainer.watch import require_finite, watched

PHASED_SCHEMA = pa.schema(
    [*CURVE_SCHEMA, pa.field("phase", pa.string(), False), *(pa.field(name, pa.float64()) for name in FIGURES)]
)
"""A curve whose steps say how they were trained: "sft" (loss in nats per target token, no rewards) or "dpo"."""

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
    "sigmoid_norm",
]
"""TRL's losses that are a mean over pairs. Its others depend on which pairs are computed together."""

_SMOOTHED = ("robust", "exo_pair")


@component
class DPOTrainer(LoRATrainer):
    """Trains a low-rank adapter to prefer the chosen responses.

    `pairs` are all that the student decided, or those of kept rows. A higher `beta` holds the student nearer to the
    reference. `label_smoothing` is the share of pairs taken to be wrong; TRL's losses `robust` and `exo_pair` use it.
    What a step counts is pairs, and tokens of both responses with their prompts.
    """

    revision: ClassVar[int] = 1
    methods: ClassVar[tuple[str, ...]] = ("dpo",)

    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    epochs: Annotated[float, Field(gt=0)] | None = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 32
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pairs: Which = "decided"
    loss_type: LossType = "sigmoid"
    beta: Annotated[float, Field(gt=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0

    def __post_init__(self) -> None:
        """Refuse what pairs can't be trained with."""
        super().__post_init__()
        fixed = {"dropout": 0.0, "packing": False, "processes": 1, "accelerate_config": None}
        for name, only in fixed.items():
            if getattr(self, name) != only:
                raise ValueError(
                    f"{name}={getattr(self, name)}: pairs are trained in one process, unpacked, and without dropout "
                    f"(it would blur student and reference apart): leave {name} at {only}"
                )
        if self.order in NEEDS:
            raise ValueError(f"order={self.order} sorts by a row's score, and pairs have two: use shuffled or source")
        if (self.label_smoothing > 0) != (self.loss_type in _SMOOTHED):
            raise ValueError(
                f"label_smoothing={self.label_smoothing} with loss_type={self.loss_type}: {' and '.join(_SMOOTHED)} "
                "need one above 0, and no other loss uses it"
            )

    @property
    def which_pairs(self) -> Which:
        """The pairs that it learns from."""
        return self.pairs

    def train(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train a new adapter on the pairs, with the student as reference."""
        return self.train_from(self.prepared(loaded), loaded, data, student, work)

    def train_from(
        self, given: Mapping[str, Any], loaded: Loaded, data: TrainingSet, student: Student, work: Work
    ) -> Metrics:
        """Train on the pairs what TRL is `given`, as `prepared` returns it.

        That can also be a trainable PeftModel of one adapter: training goes on from there, and that is the reference.
        """
        pairs = data.pairs
        assert pairs is not None, "DPO learns from pairs"
        joined = TrainingSet(sequences=pairs.joined, refused={}, ids=pairs.ids)
        passes = self.passes(joined)
        layout = laid_out(
            passes,
            joined.sequences,
            batch_size=self.batch_size,
            device_batch=self.device_batch,
            processes=1,
            packing=None,
        )
        if layout.device_batch < self.device_batch:
            say(
                f"  trainer.device_batch={self.device_batch} can't split the {self.batch_size} pairs of a step: using "
                f"{layout.device_batch}"
            )
        counted = count_pair_tokens(passes, layout, pairs)
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
                trainer = dpo_trainer(
                    **given,
                    args=self._arguments(shared),
                    tokenizer=loaded.tokenizer,
                    layout=layout,
                    passes=passes,
                    pairs=pairs,
                )
            checkpoint = last_whole(checkpoints)
            if checkpoint is None:
                check_first_pairs(trainer, layout, pairs)
            work.notes["resumed_from_step"] = begun = resumed_step(checkpoint)
            with Throughput(work.notes, counted, begun):
                watched(trainer, checkpoint, passes, pairs.ids, work.scratch)
        require_finite(trainer.model)
        curve = _curve(trainer.state.log_history, counted)
        model = trainer.accelerator.unwrap_model(trainer.model)
        if REFERENCE in model.peft_config:
            model.delete_adapter(REFERENCE)
        self.save(model, None, loaded, student, work)
        with saved(work.folder):
            work.write("curve", curve)
        return {**self._metrics(curve, passes, counted, len(pairs.ids)), **_ends(curve)}

    def _arguments(self, shared: dict[str, Any]) -> Any:
        from trl import DPOConfig

        return on_one_device(
            DPOConfig(
                **shared,
                max_length=None,
                beta=self.beta,
                loss_type=[self.loss_type],
                label_smoothing=self.label_smoothing,
            )
        )


def _curve(history: list[dict[str, Any]], counted: list[Tokens]) -> pa.Table:
    lines = []
    seen = target = 0
    for line, tokens in zip((one for one in history if "loss" in one), counted, strict=True):
        seen, target = seen + tokens.seen, target + tokens.target
        known = {name: line.get(name) for name in CURVE_SCHEMA.names}
        lines.append(known | step_line(line) | {"phase": "dpo", "tokens": seen, "target_tokens": target})
    return pa.Table.from_pylist(lines, schema=PHASED_SCHEMA)


def _ends(curve: pa.Table) -> Metrics:
    """Return the mean of each figure over the last tenth of the steps, and how those began that don't begin at 0."""
    found: Metrics = {}
    for name in FIGURES:
        values = curve[name].to_pylist()
        tail = values[-max(1, len(values) // 10) :]
        found |= {f"{name}/first": values[0]} if name.startswith("logps/") else {}
        found[f"{name}/last_tenth"] = sum(tail) / len(tail)
    return found
