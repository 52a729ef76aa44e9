"""What a training is towards: what its steps read, which of TRL's trainers trains it, and what is told of each step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from srecycle.student.model import Loaded
from srecycle.trainer.arguments import sft_arguments
from srecycle.trainer.base import CURVE_SCHEMA, TrainingSet
from srecycle.trainer.first_batch import check_first_batch
from srecycle.trainer.laid_out import sft_trainer
from srecycle.trainer.layout import Layout, Tokens, count_tokens
from srecycle.trainer.order import Passes


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """What is learnt from `data`, of which every step reads some sequences (each a `unit`)."""

    unit: ClassVar[str]
    schema: ClassVar[pa.Schema]
    """The curve's columns: CURVE_SCHEMA, and more."""

    data: TrainingSet

    @abstractmethod
    def trainer(
        self, given: Mapping[str, Any], shared: dict[str, Any], loaded: Loaded, layout: Layout, passes: Passes
    ) -> Any:
        """Return TRL's trainer of what it is `given` (`model`, `peft_config`), with arguments `shared` by all."""

    @abstractmethod
    def check_first(self, trainer: Any, layout: Layout) -> None:
        """Raise UserError where the first micro-batch can't be trained on as it should be. Draws no chance."""

    @abstractmethod
    def counted(self, passes: Passes, layout: Layout) -> list[Tokens]:
        """Count the tokens of each step that is trained."""

    def line(self, logged: Mapping[str, Any]) -> dict[str, Any]:
        """Return a step's line of the curve, less its tokens, from what TRL logged."""
        return {name: logged.get(name) for name in self.schema.names}


@dataclass(frozen=True, kw_only=True)
class Supervised(Objective):
    """The mean negative log-likelihood of a step's target tokens (nats)."""

    unit: ClassVar[str] = "rows"
    schema: ClassVar[pa.Schema] = CURVE_SCHEMA

    def trainer(
        self, given: Mapping[str, Any], shared: dict[str, Any], loaded: Loaded, layout: Layout, passes: Passes
    ) -> Any:
        """Return TRL's SFTTrainer on the rows."""
        return sft_trainer(
            **given,
            args=sft_arguments(shared),
            tokenizer=loaded.tokenizer,
            layout=layout,
            sequences=self.data.sequences,
        )

    def check_first(self, trainer: Any, layout: Layout) -> None:
        """Raise UserError where the first micro-batch can't be trained on as it should be."""
        check_first_batch(trainer, layout, self.data)

    def counted(self, passes: Passes, layout: Layout) -> list[Tokens]:
        """Count the tokens of each step's rows."""
        return count_tokens(passes, layout, self.data.sequences)
