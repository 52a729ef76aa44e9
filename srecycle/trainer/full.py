"""Full fine-tuning, as in the paper (section 4.1): every weight is trained, and the artifact is a whole model."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from srecycle.config import component
from srecycle.stage import Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.checkpoints import saved
from srecycle.trainer.sft import SupervisedTrainer


@component
class FullTrainer(SupervisedTrainer):
    """Trains all weights.

    A student in bfloat16 is trained on weights in float32, computed with in bfloat16 (autocast), and saved in bfloat16:
    a step at this learning rate is smaller than what bfloat16 can add to a weight.
    """

    revision: ClassVar[int] = 2

    learning_rate: Annotated[float, Field(gt=0)] = 2e-5

    def prepared(self, loaded: Loaded) -> Mapping[str, Any]:
        """Return the student with weights that small steps can move."""
        return {"model": loaded.model.float().requires_grad_(True)}

    def save(self, model: Any, weights: Any, loaded: Loaded, student: Student, work: Work) -> None:
        """Write the whole model in the student's own precision, with its tokenizer."""
        import torch

        dtype = getattr(torch, student.dtype)
        if weights is not None:
            weights = {name: weight.to(dtype) for name, weight in weights.items()}
        with saved(work.folder):
            model.to(dtype).save_pretrained(work.folder / "model", state_dict=weights, safe_serialization=True)
            loaded.tokenizer.save_pretrained(work.folder / "model")
