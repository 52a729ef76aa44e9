"""LoRA (arXiv:2106.09685) by PEFT: a low-rank adapter is trained, the student's own weights stay."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from srecycle.config import component, runtime
from srecycle.errors import UserError
from srecycle.stage import Work
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.checkpoints import saved
from srecycle.trainer.sft import SupervisedTrainer

_REFUSED = re.compile(r"target.modules?|targeted|incompatible|lm_head", re.IGNORECASE)
"""What PEFT's errors have in common that are about the modules it is to adapt."""


@component
class LoRATrainer(SupervisedTrainer):
    """Low-rank adaptation of rank `rank`, scaled by `alpha / rank`.

    `merge` also writes the whole model with the adapter merged in, as `merged/`, when a training ends, but not where
    processes share its weights out, and not for a training that the store already has.
    """

    revision: ClassVar[int] = 3

    rank: Annotated[int, Field(ge=1)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    merge: bool = runtime(False)

    @property
    def draws_by_batch(self) -> bool:
        """Dropout does."""
        return self.dropout > 0

    def check(self, student: Student) -> None:
        """Raise UserError where this student can't be trained here, or has no such modules."""
        super().check(student)
        if self.target_modules != "all-linear":
            from peft import get_peft_model

            with self.refusals():
                get_peft_model(student.skeleton(), self._adapter)

    def prepared(self, loaded: Loaded) -> Mapping[str, Any]:
        """Return the student and the adapter that PEFT is to make."""
        return {"model": loaded.model, "peft_config": self._adapter}

    @property
    def _adapter(self) -> Any:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules),
            task_type="CAUSAL_LM",
        )

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """PEFT names the modules that the model lacks, or that it can't adapt."""
        try:
            yield
        except ValueError as error:
            if not _REFUSED.search(str(error)):
                raise
            raise UserError(f"trainer.target_modules={self.target_modules}: {error}") from error

    def save(self, model: Any, weights: Any, loaded: Loaded, student: Student, work: Work) -> None:
        """Write the adapter with its tokenizer; its configuration names the base as the student does."""
        save_adapter(model, weights, loaded, student, work.folder / "adapter")
        if self.merge and weights is None:
            merged = model.merge_and_unload(safe_merge=True)
            with saved(work.folder):
                merged.save_pretrained(work.folder / "merged", safe_serialization=True)
                loaded.tokenizer.save_pretrained(work.folder / "merged")


def save_adapter(model: Any, weights: Any, loaded: Loaded, student: Student, folder: Path) -> None:
    """Write a PEFT model's adapter and tokenizer; the adapter's configuration names the base as the student does."""
    with saved(folder):
        model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
        _tidy(folder, student.base)
        loaded.tokenizer.save_pretrained(folder)


def _tidy(adapter: Path, base: Mapping[str, str | None]) -> None:
    """Make the saved adapter the same on every machine: the base by its name, sets in order, no generated card."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text()) | dict(base)
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    adapter.joinpath("README.md").unlink(missing_ok=True)
