"""TRL's trainers on rows as we laid them out.

A training that was stopped between its last step and its artifact is resumed with no step left to do.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srecycle.student.encoding import Encoded
from srecycle.trainer.checkpoints import written
from srecycle.trainer.layout import Layout
from srecycle.trainer.watch import require_finite

if TYPE_CHECKING:
    from trl import SFTTrainer


def laid_out_kind(kind: type[Any], layout: Layout) -> type[Any]:
    """Return one of TRL's trainers, made to take the rows as they are laid out, and to say why it can't save."""
    from torch.utils.data import Sampler

    class Places(Sampler):  # type: ignore[type-arg]
        """The entries of one pass, in the order in which they are laid out."""

        number = 0

        def __len__(self) -> int:
            return layout.per_pass

        def __iter__(self) -> Iterator[int]:
            yield from range(self.number * layout.per_pass, (self.number + 1) * layout.per_pass)

    class LaidOut(kind):  # type: ignore[misc]
        places = Places()

        def _get_train_sampler(self, train_dataset: Any = None) -> Places:
            return self.places

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write no card into checkpoints: what is trained gets ours."""

        def _run_epoch(self, **named: Any) -> None:
            if self.state.global_step < self.state.max_steps:
                super()._run_epoch(**named)
            else:  # transformers stops only behind a step: in the middle of a pass it would do one too many
                self.control.should_training_stop = True

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            require_finite(self.model)
            with written(Path(self.args.output_dir), self.state.global_step):
                super()._save_checkpoint(model, trial)

    return LaidOut


def sft_trainer(
    *, model: Any, args: Any, tokenizer: Any, layout: Layout, sequences: Sequence[Encoded], peft_config: Any = None
) -> "SFTTrainer":
    """Return TRL's supervised trainer on the laid out rows, which are gathered as they are collated."""
    from trl import SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    class Gathering(DataCollatorForLanguageModeling):  # type: ignore[misc]
        def torch_call(self, examples: list[dict[str, int]]) -> dict[str, Any]:
            lines = layout.lines(sequences, (example["place"] for example in examples))
            return dict(super().torch_call(lines))

    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return laid_out_kind(SFTTrainer, layout)(
        model=model,
        args=args,
        train_dataset=layout.dataset(),
        processing_class=tokenizer,
        peft_config=peft_config,
        # Given by us, else TRL demands a padding token, and changes the tokenizer that is saved.
        data_collator=Gathering(pad_token_id=padding or 0, padding_free=layout.packed),
    )


def gathered_weights(trainer: Any) -> Any:
    """Return the weights that processes hold in parts (FSDP, DeepSpeed), by name; None where each has them all."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return trainer.accelerator.get_state_dict(trainer.model_wrapped)
    return None
