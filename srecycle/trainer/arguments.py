"""The libraries' arguments for our settings: what they must do, and what they must leave to us."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from srecycle.trainer.layout import Layout

if TYPE_CHECKING:
    import torch

    from srecycle.trainer.sft import SupervisedTrainer


def shared_arguments(
    settings: "SupervisedTrainer",
    *,
    dtype: str,
    device: "torch.device",
    layout: Layout,
    steps: int,
    checkpoints: Path,
) -> dict[str, Any]:
    """Return what every one of TRL's configurations takes, for `steps` steps of a student in `dtype`."""
    from torch import cuda

    on_cpu = device.type == "cpu"
    if device.index is not None:
        cuda.set_device(device)  # else Trainer moves the model to the first one
    return {
        "output_dir": str(checkpoints),
        "optim": "adamw_torch_fused",
        "learning_rate": settings.learning_rate,
        "max_steps": steps,
        "per_device_train_batch_size": layout.device_batch,
        "gradient_accumulation_steps": layout.accumulation,
        "average_tokens_across_devices": True,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": on_cpu,
        "bf16": not on_cpu and dtype == "bfloat16",
        "activation_checkpointing": settings.gradient_checkpointing,
        "dataloader_pin_memory": not on_cpu,
        "ddp_find_unused_parameters": False,
        "remove_unused_columns": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }


def sft_arguments(shared: dict[str, Any]) -> Any:
    """Return TRL's configuration of supervised fine-tuning on rows that are ready."""
    from trl import SFTConfig

    prepared = {"dataset_kwargs": {"skip_prepare_dataset": True}, "max_length": None, "packing": False}
    return on_one_device(SFTConfig(**shared, **prepared))


def on_one_device(arguments: Any) -> Any:
    """Keep Trainer from DataParallel over every visible GPU, which would multiply the global batch."""
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
