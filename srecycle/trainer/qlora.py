"""QLoRA (arXiv:2305.14314): LoRA on a student whose weights are held in 4 bits (NF4) by bitsandbytes.

The adapter is one for the student itself, and is applied to it in full precision when it is evaluated.
"""

import importlib.util
from typing import Any, ClassVar

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.lora import LoRATrainer


@component
class QLoRATrainer(LoRATrainer):
    """LoRA on 4-bit weights; `double_quantization` also quantises their scales. Computes in `student.dtype`."""

    revision: ClassVar[int] = 2
    trains_merged: ClassVar[bool] = False

    double_quantization: bool = True

    def __post_init__(self) -> None:
        """Refuse to merge into weights of 4 bits, which would round the adapter away."""
        super().__post_init__()
        if self.merge:
            raise ValueError("merge=true is not for weights of 4 bits: merge the adapter into the student afterwards")

    def check(self, student: Student) -> None:
        """Raise UserError where bitsandbytes, a CUDA device or bfloat16 is missing."""
        super().check(student)
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(
                "trainer=qlora needs the package bitsandbytes, which isn't installed: pip install bitsandbytes, or use "
                "trainer=lora"
            )
        if not _cuda(student):
            raise UserError(
                f"trainer=qlora needs a CUDA device, and student.device={student.device} is none here: use lora"
            )
        if student.dtype != "bfloat16":
            raise UserError(f"trainer=qlora computes in bfloat16, and student.dtype={student.dtype}: set bfloat16")
        if student.adapter or student.adapters:
            raise UserError(
                "trainer=qlora can't merge student.adapter into weights of 4 bits: save the merged student as a model "
                "folder, and give it as student.path"
            )

    def load_to_train(self, student: Student) -> Loaded:
        """Load the student in 4 bits."""
        return student.load(quantization=self.quantization(student))

    def quantization(self, student: Student) -> Any:
        """Return transformers' configuration of the 4-bit weights."""
        import torch
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=getattr(torch, student.dtype),
        )


def _cuda(student: Student) -> bool:
    import torch

    return torch.cuda.is_available() and student.device != "cpu"
