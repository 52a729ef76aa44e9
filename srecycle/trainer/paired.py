"""TRL's DPOTrainer on our own pairs, with the mean over a step's pairs however the step is split.

TRL would tokenise prompt and response as one text, add its own EOS and cut at the end; here it prepares nothing, and
collates the ids that `pair_set` made. The reference is the adapter switched off, or, where an adapter is trained
further, a frozen copy of it named `ref`: no second model is in memory.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from srecycle.errors import UserError
from srecycle.student.model import Loaded
from srecycle.trainer.arguments import on_one_device
from srecycle.trainer.base import CURVE_SCHEMA
from srecycle.trainer.laid_out import laid_out_kind
from srecycle.trainer.layout import Layout, Tokens
from srecycle.trainer.objective import Objective
from srecycle.trainer.order import Passes
from srecycle.trainer.pairs import PairSet

if TYPE_CHECKING:
    from trl import DPOTrainer

FIGURES = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
"""What TRL tells of each step beside the loss, as means over its pairs. Rewards are beta times the log-ratio of student
and reference, log-probabilities sums over a completion's tokens (nats), accuracies shares of pairs."""

PHASED_SCHEMA = pa.schema(
    [*CURVE_SCHEMA, pa.field("phase", pa.string(), False), *(pa.field(name, pa.float64()) for name in FIGURES)]
)
"""A curve whose steps say how they were trained: "sft" (loss in nats per target token, no rewards) or "dpo"."""

REFERENCE = "ref"
"""What TRL calls its frozen copy of an adapter."""


@dataclass(frozen=True, kw_only=True)
class Preferring(Objective):
    """The mean of a preference loss over a step's pairs, plus `sft_weight` times the chosen responses' own loss.

    That is the mean negative log-likelihood (nats) of their target tokens. `settings` are those of TRL's loss.
    """

    unit: ClassVar[str] = "pairs"
    schema: ClassVar[pa.Schema] = PHASED_SCHEMA

    pairs: PairSet
    loss_type: str
    sft_weight: float
    settings: Mapping[str, Any]

    def trainer(
        self, given: Mapping[str, Any], shared: dict[str, Any], loaded: Loaded, layout: Layout, passes: Passes
    ) -> "DPOTrainer":
        """Return TRL's DPOTrainer on the pairs."""
        from trl import DPOConfig

        terms = {self.loss_type: 1.0} | ({"sft": self.sft_weight} if self.sft_weight else {})
        args = DPOConfig(
            **shared, **self.settings, max_length=None, loss_type=list(terms), loss_weights=list(terms.values())
        )
        ready = {**given, "args": on_one_device(args)}
        return _dpo_trainer(self, ready, loaded.tokenizer, layout, passes)

    def check_first(self, trainer: "DPOTrainer", layout: Layout) -> None:
        """Raise UserError where the first micro-batch can't be trained on as it should be. Draws no chance."""
        import torch

        pairs = self.pairs
        places = range(min(layout.device_batch, layout.per_pass))
        rows = [row for place in places for row in layout.entries[place]]
        batch = trainer.data_collator([{"place": place} for place in places])
        ids, marked, read = (batch[name] for name in ("input_ids", "completion_mask", "attention_mask"))
        sequences = [side[row] for side in (pairs.chosen, pairs.rejected) for row in rows]
        assert ids[marked == 1].tolist() == [token for one in sequences for token in one.target], "not the completions"
        assert ids[read == 1].tolist() == [token for one in sequences for token in one.ids], "not the sequences"
        trainer.model.eval()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            loss = float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))
        if not math.isfinite(loss):
            raise UserError(
                f"training can't begin: the student's loss is {loss} on the first pairs "
                f"({', '.join(pairs.ids[row] for row in rows[:8])}); use student.dtype=float32 or bfloat16, and check "
                "that its weights are whole"
            )

    def counted(self, passes: Passes, layout: Layout) -> list[Tokens]:
        """Count the tokens of both sequences of each step's pairs."""
        pairs, joined, counted = self.pairs, self.data.sequences, []
        widest = [max(len(one.ids), len(two.ids)) for one, two in zip(pairs.chosen, pairs.rejected, strict=True)]
        for step in passes.trained():
            batches = [step[at : at + layout.device_batch] for at in range(0, len(step), layout.device_batch)]
            counted.append(
                Tokens(
                    seen=sum(len(joined[row].ids) for row in step),
                    target=sum(pairs.chosen[row].target_tokens + pairs.rejected[row].target_tokens for row in step),
                    padded=sum(2 * len(batch) * max(widest[row] for row in batch) for batch in batches),
                )
            )
        return counted

    def line(self, logged: Mapping[str, Any]) -> dict[str, Any]:
        """Return a step's line, with its rewards."""
        return super().line(logged) | {"phase": "dpo"}

    def shares(self, batch: Mapping[str, Any], step: tuple[int, ...]) -> list[float]:
        """Return what share of a step's pairs, and of its chosen responses' tokens, a micro-batch holds."""
        half = len(batch["input_ids"]) // 2
        tokens = sum(self.pairs.chosen[row].target_tokens for row in step)
        return [half / len(step), int(batch["completion_mask"][:half].sum()) / tokens]


def _dpo_trainer(
    objective: Preferring, given: Mapping[str, Any], tokenizer: Any, layout: Layout, passes: Passes
) -> "DPOTrainer":
    """Return TRL's trainer on the laid out pairs, which are gathered as they are collated."""
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class Gathering(DataCollatorForPreference):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, int]]) -> dict[str, Any]:
            rows = [row for example in examples for row in layout.entries[example["place"]]]
            return dict(super().torch_call([pair_line(objective.pairs, row) for row in rows]))

    class Paired(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
            if not self.model.training:
                return super().compute_loss(model, inputs, *others, **named)
            # TRL and transformers take the mean of the batches' means, in which a smaller batch weighs too much.
            shares = objective.shares(inputs, passes.at(self.state.global_step + 1))
            pairs, tokens = (share * self.current_gradient_accumulation_steps for share in shares)
            self.loss_weights = [pairs, objective.sft_weight * tokens][: len(self.loss_types)]
            loss = super().compute_loss(model, inputs, *others, **named)
            for name in FIGURES:
                self._metrics["train"][name][-1] *= pairs
            return loss

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return laid_out_kind(Paired, layout)(
        **given,
        train_dataset=layout.dataset(),
        processing_class=copy.deepcopy(tokenizer),  # TRL gives one without a padding token one
        data_collator=Gathering(pad_token_id=padding or 0),
    )


def pair_line(pairs: PairSet, row: int) -> dict[str, list[int]]:
    """Return a pair as TRL's collator takes it."""
    one, two = pairs.chosen[row], pairs.rejected[row]
    before = one.target_start
    assert before and one.ids[:before] == two.ids[:before], "a pair's completions stand after one prompt"
    return {
        "prompt_ids": list(one.ids[:before]),
        "chosen_ids": list(one.ids[before:]),
        "rejected_ids": list(two.ids[before:]),
    }
