"""Supervised fine-tuning on the chosen responses of preference pairs: what DPO is to be compared with.

In: the pairs of stage `preferences`, of which those are trained on that DPO would be, encoded alike; of the rejected
responses nothing is learnt. So the two differ in what they make of the same decisions, and in nothing else.
"""

from dataclasses import replace
from typing import ClassVar

from srecycle.config import component
from srecycle.stage import Metrics, Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.base import TrainingSet
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.order import NEEDS
from srecycle.trainer.pairs import Which


@component
class ChosenTrainer(LoRATrainer):
    """LoRA on the chosen responses. `pairs` are all that the student decided, or those of kept rows."""

    revision: ClassVar[int] = 1

    pairs: Which = "decided"

    def __post_init__(self) -> None:
        """Refuse an order that pairs have no score for."""
        super().__post_init__()
        if self.order in NEEDS:
            raise ValueError(f"order={self.order} sorts by a row's score, and pairs have two: use shuffled or source")

    @property
    def reads_rows(self) -> bool:
        """Pairs are all that it reads."""
        return False

    @property
    def which_pairs(self) -> Which:
        """The pairs whose chosen responses it learns from."""
        return self.pairs

    def fit(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train on the chosen responses."""
        assert data.pairs is not None, "the chosen responses are those of pairs"
        chosen = replace(data, sequences=data.pairs.chosen, ids=data.pairs.ids, scores={})
        return super().fit(loaded, chosen, student, work)
