"""LoRA fine-tuning by TRL's SFTTrainer and PEFT.

TRL gets token ids and labels that `training_set` made, and prepares nothing itself: what is trained is what was scored,
token for token, and only targets count for the loss. Identity: everything that moves a weight. How often a checkpoint
is written and the device are runtime, and so is how the global batch is split (`device_batch`), but where there is
dropout: its masks are drawn batch by batch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.errors import UserError
from srecycle.progress import metered, quiet_libraries, say
from srecycle.stage import Metrics, Work
from srecycle.student.encoding import Encoded
from srecycle.student.model import Loaded
from srecycle.trainer.base import CURVE_SCHEMA, Trainer, TrainingSet

if TYPE_CHECKING:
    from trl import SFTConfig, SFTTrainer

_FINISHED = "srecycle_finished"
"""A checkpoint holds this file once it is whole: a kill while it is written must not be resumed from."""


@component
class LoRATrainer(Trainer):
    """Low-rank adaptation. `batch_size` is global (sequences a step), `warmup` a share of all steps.

    `max_steps` (where given) overrides `epochs`: arms of different size are then trained on equal steps.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 128
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    seed: int = 0
    device_batch: Annotated[int, Field(ge=1)] = runtime(8)
    checkpoint_steps: Annotated[int, Field(ge=1)] = runtime(50)
    gradient_checkpointing: bool = runtime(False)

    def resolved(self) -> Mapping[str, Any]:
        """The split of the batch counts where dropout draws by it."""
        return {"split_under_dropout": self._device_batch} if self.dropout else {}

    @property
    def _device_batch(self) -> int:
        return math.gcd(self.batch_size, self.device_batch)

    def fit(self, loaded: Loaded, data: TrainingSet, base: Mapping[str, str | None], work: Work) -> Metrics:
        """Train from the last whole checkpoint, or from the start; write the adapter and the curve."""
        from peft import LoraConfig
        from transformers import set_seed
        from trl import SFTTrainer

        checkpoints = work.scratch / "checkpoints"
        set_seed(self.seed)
        modules = self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules)
        lora = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=modules,
            task_type="CAUSAL_LM",
        )
        with quiet_libraries():
            arguments = self._arguments(loaded, checkpoints)
            try:
                trainer = SFTTrainer(
                    model=loaded.model,
                    args=arguments,
                    train_dataset=_dataset(data.sequences),
                    processing_class=loaded.tokenizer,
                    peft_config=lora,
                )
            except ValueError as error:
                if "arget modules" not in str(error):
                    raise
                raise UserError(f"trainer.target_modules={self.target_modules}: {error}") from error
            checkpoint = _last_whole(checkpoints)
            work.notes["resumed_from_step"] = _step(checkpoint) if checkpoint else 0
            curve = _train(trainer, checkpoint)
        _require_finite(trainer.model)
        work.folder.joinpath("adapter").mkdir()
        trainer.model.save_pretrained(work.folder / "adapter", safe_serialization=True)
        _tidy(work.folder / "adapter", base)
        work.write("curve", curve)
        losses = curve["loss"].drop_null().to_pylist()
        tail = losses[-max(1, len(losses) // 10) :]
        return {
            "steps": int(trainer.state.global_step),
            "epochs": round(float(trainer.state.epoch or 0.0), 4),
            "loss/first": losses[0],
            "loss/last_tenth": sum(tail) / len(tail),
        }

    def _arguments(self, loaded: Loaded, checkpoints: Path) -> "SFTConfig":
        from trl import SFTConfig

        on_cpu = loaded.device.type == "cpu"
        if self._device_batch < self.device_batch:
            say(f"  trainer.device_batch={self.device_batch} can't split {self.batch_size}: using {self._device_batch}")
        arguments = SFTConfig(
            output_dir=str(checkpoints),
            learning_rate=self.learning_rate,
            num_train_epochs=self.epochs,
            max_steps=self.max_steps or -1,
            per_device_train_batch_size=self._device_batch,
            gradient_accumulation_steps=self.batch_size // self._device_batch,
            warmup_steps=self.warmup,
            lr_scheduler_type=self.schedule,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            seed=self.seed,
            data_seed=self.seed,
            use_cpu=on_cpu,
            bf16=not on_cpu and str(loaded.model.dtype) == "torch.bfloat16",
            activation_checkpointing=self.gradient_checkpointing,
            dataloader_pin_memory=not on_cpu,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            packing=False,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=self.checkpoint_steps,
            save_total_limit=2,
            report_to="none",
            disable_tqdm=True,
        )
        # Else Trainer spreads over every visible GPU by DataParallel, which multiplies the global batch.
        arguments._n_gpu = min(1, arguments.n_gpu)
        return arguments


def _require_finite(model: Any) -> None:
    """Refuse weights that are no numbers: the loss of the last step is taken before that step moves them."""
    for name, weight in model.named_parameters():
        if weight.requires_grad and not bool(weight.isfinite().all()):
            raise UserError(f"training ended with weights that are not finite ({name}): lower trainer.learning_rate")


def _dataset(sequences: Sequence[Encoded]) -> Any:
    from datasets import Dataset

    ignored = -100  # the label that PyTorch's cross entropy leaves out
    return Dataset.from_dict(
        {
            "input_ids": [list(sequence.ids) for sequence in sequences],
            "labels": [
                [ignored] * sequence.target_start + list(sequence.ids[sequence.target_start :])
                for sequence in sequences
            ],
        }
    )


def _train(trainer: "SFTTrainer", checkpoint: str | None) -> pa.Table:
    """Run the training under a progress meter, and return its curve."""
    from transformers import PrinterCallback, TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            meter.advance()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(float(loss)):
                raise UserError(
                    f"training stopped: the loss is {loss} at step {state.global_step}; lower trainer.learning_rate, "
                    "or use student.dtype=float32. Finished checkpoints are kept, and a run with other settings is new"
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            Path(args.output_dir, f"checkpoint-{state.global_step}", _FINISHED).touch()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Watch())
    total = trainer.args.max_steps
    if total <= 0:
        total = math.ceil(len(trainer.get_train_dataloader()) / trainer.args.gradient_accumulation_steps)
        total = math.ceil(total * trainer.args.num_train_epochs)
    with metered("train", total, "steps") as meter:
        if checkpoint:
            meter.resume_at(_step(checkpoint))
        trainer.train(resume_from_checkpoint=checkpoint)
    lines = [
        {name: line.get(name) for name in CURVE_SCHEMA.names} for line in trainer.state.log_history if "loss" in line
    ]
    return pa.Table.from_pylist(lines, schema=CURVE_SCHEMA)


def _last_whole(checkpoints: Path) -> str | None:
    """Return the newest checkpoint that was written to its end, or None."""
    whole = [path.parent for path in checkpoints.glob(f"checkpoint-*/{_FINISHED}")]
    return max(map(str, whole), key=_step, default=None)


def _step(checkpoint: str) -> int:
    """Return the step after which a checkpoint was written: the end of its name."""
    return int(checkpoint.rsplit("-", 1)[1])


def _tidy(adapter: Path, base: Mapping[str, str | None]) -> None:
    """Make the saved adapter the same on every machine: the base by its name, sets in order, no generated card."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text()) | dict(base)
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    adapter.joinpath("README.md").unlink(missing_ok=True)
