"""What is checked before the first step, on the first batch as TRL collates it.

Its labels must be the targets, token by token, and nothing else; its loss must be a number; and packed rows must have
the loss that they have one by one, else the model lets them see each other.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from srecycle.errors import UserError
from srecycle.student.encoding import Encoded
from srecycle.trainer.base import TrainingSet
from srecycle.trainer.layout import IGNORED, Layout, line

if TYPE_CHECKING:
    from trl import SFTTrainer

_TOLERANCE, _COARSE = 1e-4, 2e-2
"""How far a packed loss may be from the same rows' own, as a share, in float32 and in other precisions."""


def check_first_batch(trainer: "SFTTrainer", layout: Layout, data: TrainingSet) -> None:
    """Raise UserError where the first micro-batch can't be trained on as it should be. Draws no chance."""
    places = range(min(layout.device_batch, layout.per_pass))
    rows = [row for place in places for row in layout.entries[place]]
    sequences = [data.sequences[row] for row in rows]
    batch = trainer.data_collator([{"place": place} for place in places])
    labelled = batch["labels"] != IGNORED
    targets = [token for one in sequences for token in one.target]
    assert batch["labels"][labelled].tolist() == targets, "labels are not the targets"
    assert batch["input_ids"][labelled].tolist() == targets, "labels stand at other tokens than their own"
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return  # no whole model is on any device yet; the first step's loss is checked like every other
    together = _loss(trainer, batch)
    if not math.isfinite(together):
        named = ", ".join(data.ids[row] for row in rows[:8])
        raise UserError(
            f"training can't begin: the student's loss is {together} on the first rows ({named}); use "
            "student.dtype=float32 or bfloat16, and check that its weights are whole"
        )
    if layout.packed:
        _check_packed(trainer, layout, data, places)


def _check_packed(trainer: "SFTTrainer", layout: Layout, data: TrainingSet, places: Sequence[int]) -> None:
    """Raise UserError where packed rows see each other: in the first micro-batch, or the first bin of several rows."""
    if sum(len(layout.entries[place]) for place in places) < 2:
        places = [place for place, entry in enumerate(layout.entries) if len(entry) > 1][:1]
    sequences = [data.sequences[row] for place in places for row in layout.entries[place]]
    if sequences:
        together = _loss(trainer, trainer.data_collator([{"place": place} for place in places]))
        alone = _loss(trainer, _one_by_one(sequences))
        exact = str(trainer.model.dtype) == "torch.float32" and not trainer.args.bf16
        if abs(together - alone) > (_TOLERANCE if exact else _COARSE) * alone:
            raise UserError(
                f"trainer.packing: this student's rows see each other when packed (loss {together:.6g}, one by one "
                f"{alone:.6g}): use trainer.packing=false, or student.attention=flash_attention_2"
            )


def _one_by_one(sequences: Sequence[Encoded]) -> dict[str, Any]:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    padded: dict[str, Any] = DataCollatorForLanguageModeling(pad_token_id=0)([line([one], False) for one in sequences])
    return padded


def _loss(trainer: "SFTTrainer", batch: dict[str, Any]) -> float:
    """Return the mean loss over the target tokens (nats)."""
    import torch

    trainer.model.eval()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        return float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)))
