"""Supervised fine-tuning, and then DPO of that same adapter on the pairs: one training, one adapter.

The first phase learns from the kept rows, or from the chosen responses of the pairs (`sft_chosen`). The reference of
the second is the student as the first one left it: TRL keeps a frozen copy of its adapter. Each phase has checkpoints
of its own, and the second always begins with the first one's adapter as it was written, so that a training that was
killed in either ends as one that was not.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.config import component
from srecycle.progress import quiet_libraries
from srecycle.stage import Metrics, Work
from srecycle.store import write_json
from srecycle.student import Student
from srecycle.student.model import Loaded
from srecycle.trainer.base import Trainer, TrainingSet
from srecycle.trainer.checkpoints import saved
from srecycle.trainer.chosen import ChosenTrainer
from srecycle.trainer.dpo import DPOTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.paired import PHASED_SCHEMA
from srecycle.trainer.pairs import Which

DONE = "done.json"
_SHAPE = ("rank", "alpha", "target_modules")
_COUNTED = ("step", "tokens", "target_tokens")


@component
class SFTThenDPOTrainer(Trainer):
    """Trains an adapter as `sft` says, on kept rows or on the chosen responses of the pairs, and then as `dpo` says.

    Metrics of the first phase stand under `sft/`, those of the second under their own names. In the curve, steps and
    tokens of the second go on where the first one ends, and `phase` tells the two.
    """

    methods: ClassVar[tuple[str, ...]] = ("sft", "dpo")

    sft: LoRATrainer
    dpo: DPOTrainer

    def __post_init__(self) -> None:
        """Refuse phases that can't train one adapter."""
        if type(self.sft) not in (LoRATrainer, ChosenTrainer):
            raise ValueError(f"sft is a {type(self.sft).__name__}: the first phase is trainer=lora, or sft_chosen")
        if isinstance(self.sft, ChosenTrainer) and self.sft.pairs != self.dpo.pairs:
            raise ValueError(
                f"sft.pairs={self.sft.pairs}, dpo.pairs={self.dpo.pairs}: both learn from one set of pairs, so set "
                "them alike"
            )
        for name in _SHAPE:
            first, second = getattr(self.sft, name), getattr(self.dpo, name)
            if first != second:
                raise ValueError(f"sft.{name}={first}, dpo.{name}={second}: both train one adapter, so set them alike")
        if self.sft.processes > 1:
            raise ValueError(f"sft.processes={self.sft.processes}: the second phase needs the student here, so set 1")
        if self.sft.merge:
            raise ValueError("sft.merge=true would merge an adapter that is not done: use dpo.merge")

    @property
    def reads_rows(self) -> bool:
        """Whether the first phase learns from kept rows."""
        return self.sft.reads_rows

    @property
    def which_pairs(self) -> Which:
        """The pairs that the second phase learns from."""
        return self.dpo.pairs

    @property
    def needs(self) -> tuple[str, ...]:
        """The scores that the order of the first phase sorts by."""
        return self.sft.needs

    def check(self, student: Student) -> None:
        """Raise UserError where this student can't be trained here."""
        self.sft.check(student)

    def fit(self, loaded: Loaded, data: TrainingSet, student: Student, work: Work) -> Metrics:
        """Train both phases, from the last whole checkpoint of the one that was stopped."""
        first, metrics = self._supervised(loaded, data, student, work)
        work.notes["sft"] = metrics.pop("notes")
        second = Work(store=work.store, folder=work.folder, scratch=_folder(work.scratch / "dpo"), notes=work.notes)
        given = {"model": _continued(loaded.model, first / "adapter")}
        found = self.dpo.train_from(given, loaded, data, student, second)
        curves = (pq.read_table(folder / "curve.parquet") for folder in (first, work.folder))
        with saved(work.folder):
            work.write("curve", _joined(*curves))
        return {**{f"sft/{name}": value for name, value in metrics.items()}, **found}

    def _supervised(
        self, loaded: Loaded, data: TrainingSet, student: Student, work: Work
    ) -> tuple[Path, dict[str, Any]]:
        """Train the first phase, unless that was done, and return where it stands, with its metrics and notes."""
        scratch = _folder(work.scratch / "sft")
        made, done = _folder(scratch / "made"), scratch / DONE
        if not done.exists():
            phase = Work(store=work.store, folder=made, scratch=scratch)
            metrics = self.sft.fit(loaded, data, student, phase)
            with saved(scratch):
                write_json(done, {**metrics, "notes": phase.notes})
            _without_adapter(loaded.model)
        return made, json.loads(done.read_text())


def _continued(model: Any, adapter: Path) -> Any:
    """Return the student with an adapter that is trained further."""
    from peft import PeftModel

    with quiet_libraries():
        return PeftModel.from_pretrained(model, adapter, is_trainable=True, torch_device=str(model.device))


def _without_adapter(model: Any) -> None:
    """Take out what PEFT put into a student to train it: that leaves its weights as they were."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, module in adapted.items():
        model.set_submodule(name, module.get_base_layer())
    del model.peft_config


def _joined(first: pa.Table, second: pa.Table) -> pa.Table:
    ends = first.slice(len(first) - 1).to_pylist()[0]
    lines = [_phased(line) for line in first.to_pylist()]
    lines += [line | {name: line[name] + ends[name] for name in _COUNTED} for line in second.to_pylist()]
    return pa.Table.from_pylist(lines, schema=PHASED_SCHEMA)


def _phased(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict.fromkeys(PHASED_SCHEMA.names), **line, "phase": "sft"}


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path
