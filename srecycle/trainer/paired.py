"""TRL's DPOTrainer on our own pairs, with the mean over a step's pairs however the step is split.

TRL would tokenise prompt and response as one text, add its own EOS and cut at the end; here it prepares nothing, and
collates the ids that `pair_set` made. The reference is the adapter switched off, or, where an adapter is trained
further, a frozen copy of it named `ref`: no second model is in memory.
"""

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from srecycle.errors import UserError
from srecycle.trainer.laid_out import laid_out_kind
from srecycle.trainer.layout import Layout, Tokens
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

REFERENCE = "ref"
"""What TRL calls its frozen copy of an adapter."""


def dpo_trainer(
    *, model: Any, args: Any, tokenizer: Any, layout: Layout, passes: Passes, pairs: PairSet, peft_config: Any = None
) -> "DPOTrainer":
    """Return TRL's trainer on the laid out pairs, which are gathered as they are collated."""
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    class Gathering(DataCollatorForPreference):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, int]]) -> dict[str, Any]:
            rows = [row for example in examples for row in layout.entries[example["place"]]]
            return dict(super().torch_call([pair_line(pairs, row) for row in rows]))

    class Paired(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def compute_loss(self, model: Any, inputs: Any, *others: Any, **named: Any) -> Any:
            loss = super().compute_loss(model, inputs, *others, **named)
            if not self.model.training:
                return loss
            # TRL and transformers take the mean of the batches' means, in which a smaller batch weighs too much.
            step = len(passes.at(self.state.global_step + 1))
            weight = len(inputs["input_ids"]) // 2 * self.current_gradient_accumulation_steps / step
            for name in FIGURES:
                self._metrics["train"][name][-1] *= weight
            return loss * weight

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return laid_out_kind(Paired, layout)(
        model=model,
        args=args,
        train_dataset=layout.dataset(),
        processing_class=copy.deepcopy(tokenizer),  # TRL gives one without a padding token one
        peft_config=peft_config,
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


def check_first_pairs(trainer: "DPOTrainer", layout: Layout, pairs: PairSet) -> None:
    """Raise UserError where the first micro-batch can't be trained on as it should be. Draws no chance."""
    import torch

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
            f"({', '.join(pairs.ids[row] for row in rows[:8])}); use student.dtype=float32 or bfloat16, and check that "
            "its weights are whole"
        )


def count_pair_tokens(passes: Passes, layout: Layout, pairs: PairSet) -> list[Tokens]:
    """Count the tokens of each step that is trained, in both sequences of its pairs."""
    joined, counted = pairs.joined, []
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


def step_line(line: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what TRL logged of a step's rewards."""
    return {name: line.get(name) for name in FIGURES}
