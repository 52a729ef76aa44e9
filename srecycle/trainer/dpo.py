"""Direct preference optimisation (arXiv:2305.18290) by TRL's DPOTrainer, on what the student took against what it beat.

In: the pairs of stage `preferences`. A low-rank adapter is trained; the reference is the student without it, so there
is no second model. Out: as of supervised training; `curve.parquet` has TRL's rewards beside the loss.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from srecycle.config import component
from srecycle.stage import Metrics, Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.base import TrainingSet
from srecycle.trainer.layout import Tokens
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.order import NEEDS, Passes
from srecycle.trainer.paired import FIGURES, REFERENCE, Preferring
from srecycle.trainer.pairs import PairSet, Which

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

    A preference loss knows only which of two is likelier. `sft_weight` times the loss of supervised fine-tuning on the
    chosen responses (nats per target token) is added, which makes them likely (as in Pang et al. 2024,
    arXiv:2404.19733, but a mean over tokens); 0 is plain DPO.
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
    sft_weight: Annotated[float, Field(ge=0)] = 0.0

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
        assert data.pairs is not None, "DPO learns from pairs"
        return self.train_towards(self.objective(data.pairs), given, loaded, student, work)

    def objective(self, pairs: PairSet) -> Preferring:
        """Return what a training on these pairs is towards."""
        return Preferring(
            data=TrainingSet(sequences=pairs.joined, refused={}, ids=pairs.ids),
            pairs=pairs,
            loss_type=self.loss_type,
            sft_weight=self.sft_weight,
            settings={"beta": self.beta, "label_smoothing": self.label_smoothing},
        )

    def save(self, model: Any, weights: Any, loaded: Loaded, student: Student, work: Work) -> None:
        """Write the adapter, and not the copy of it that training was measured against."""
        if REFERENCE in model.peft_config:
            model.delete_adapter(REFERENCE)
        super().save(model, weights, loaded, student, work)

    def figures(self, curve: pa.Table, passes: Passes, counted: list[Tokens]) -> Metrics:
        """Return the metrics of a finished training, with where its rewards began and ended."""
        return {**super().figures(curve, passes, counted), **_ends(curve)}


def _ends(curve: pa.Table) -> Metrics:
    """Return the mean of each figure over the last tenth of the steps, and how those began that don't begin at 0."""
    found: Metrics = {}
    for name in FIGURES:
        values = curve[name].to_pylist()
        tail = values[-max(1, len(values) // 10) :]
        found |= {f"{name}/first": values[0]} if name.startswith("logps/") else {}
        found[f"{name}/last_tenth"] = sum(tail) / len(tail)
    return found
