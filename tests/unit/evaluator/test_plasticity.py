"""Learning a new task before and after fine-tuning: what is measured, by whom, and what survives a kill."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from srecycle.assemble import Assemble, Assembly
from srecycle.config import component
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.data.testbed_task import TestbedTask as NewTask
from srecycle.engine.local import HERE
from srecycle.errors import UserError
from srecycle.evaluator.base import Evaluate, Subject
from srecycle.evaluator.plasticity import Plasticity, examined
from srecycle.keep.none import KeepAll
from srecycle.rows import ROW_SCHEMA, to_table
from srecycle.selector import Select
from srecycle.selector.never import Never
from srecycle.stage import Metrics, Work
from srecycle.store import Store
from srecycle.student import PromptTemplate, Student
from srecycle.testbed.wording import parse_instruction
from srecycle.testbed.world import truth
from srecycle.trainer import NoTrainer, Train
from srecycle.trainer.dpo import DPOTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.qlora import QLoRATrainer

slow = pytest.mark.slow

BASE = Path(__file__).parents[3] / "srecycle" / "testbed" / "bases" / "weak"
QUESTION = "question : {instruction} reply :"
TEMPLATE = PromptTemplate(user=QUESTION, user_with_input=QUESTION + "{input}", response_prefix=" ")
START = Student(path=str(BASE), max_length=128, device="cpu", threads=1)
TASK = NewTask(count=60)
STEPS: dict[str, Any] = {"match": "steps", "max_steps": 12, "batch_size": 16, "device_batch": 16, "rank": 8}
TRAINER = LoRATrainer(**STEPS, learning_rate=5e-3)


def _measured(evaluator: Plasticity, root: Path, adapter: Path | None = None) -> tuple[Metrics, pa.Table]:
    for name in ("made", "scratch"):
        (root / name).mkdir(parents=True, exist_ok=True)
    subject = Subject(student=START, template=TEMPLATE, adapter=adapter, training=pa.table({}))
    work = Work(store=Store(root / "store"), folder=root / "made", scratch=root / "scratch")
    metrics = evaluator.evaluate(subject, work)
    file = root / "made" / "plasticity.parquet"
    return metrics, pq.read_table(file) if file.exists() else pa.table({})


def _broken(folder: Path) -> Path:
    """Save an adapter that undoes much of what the student knows."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(START.load().model, lora)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data *= 4
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


@slow
def test_plasticity_measures_both_students_and_leaves_them_alone(tmp_path: Path) -> None:
    adapter = _broken(tmp_path)
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    metrics, table = _measured(Plasticity(task=TASK, trainer=TRAINER, test_rows=30), tmp_path, adapter)
    assert (adapter / "adapter_model.safetensors").read_bytes() == weights
    assert metrics["rows"] == len(table) == metrics["train_rows"] == 30
    for name in ("before", "after"):
        assert metrics[f"loss/{name}_end"] < metrics[f"loss/{name}_start"]
    assert metrics["loss/after_start"] > metrics["loss/before_start"] + 1
    ends = [torch.tensor(table[f"{name}_end_loss"].to_pylist()) for name in ("after", "before")]
    assert metrics["loss/change"] == pytest.approx(float((ends[0] - ends[1]).mean()), rel=1e-4)
    assert metrics["loss/change_stderr"] == pytest.approx(float((ends[0] - ends[1]).std() / 30**0.5), rel=1e-4)
    assert metrics["loss/change"] > 3 * metrics["loss/change_stderr"], "a broken student learns less in these steps"


@slow
def test_plasticity_of_the_untuned_student_changes_nothing(tmp_path: Path) -> None:
    metrics, _ = _measured(Plasticity(task=TASK, trainer=TRAINER, test_rows=30), tmp_path)
    assert (metrics["loss/change"], metrics["loss/change_stderr"], metrics["accuracy/change"]) == (0.0, 0.0, 0.0)
    assert metrics["loss/before_end"] == metrics["loss/after_end"] < metrics["loss/before_start"]


@slow
def test_examined_accuracy_is_what_greedy_decoding_writes() -> None:
    lines = to_table(NewTask(count=12).rows(), ROW_SCHEMA).to_pylist()
    loaded = START.load()
    for line in lines[:6]:  # what the student does write is right by definition
        question = loaded.tokenizer.encode(TEMPLATE.prompt(line["instruction"]))
        prompt = torch.tensor([[loaded.tokenizer.bos_token_id, *question]])
        written = loaded.model.generate(prompt, do_sample=False, max_new_tokens=60)[0, prompt.shape[1] :]
        line["response"] = loaded.tokenizer.decode(written, skip_special_tokens=True).strip()
    ids, found = examined(START, TEMPLATE, lines)
    assert ids == [line["id"] for line in lines]
    assert found["correct"][:6] == [1.0] * 6 and sum(found["correct"][6:]) < 6


@component
class Counting(LoRATrainer):
    """Counts its trainings."""

    fits: ClassVar[list[Path]] = []

    def fit(self, loaded: Any, data: Any, student: Any, work: Work) -> Metrics:
        self.fits.append(work.folder)
        return super().fit(loaded, data, student, work)


@slow
def test_plasticity_killed_keeps_what_is_finished(tmp_path: Path) -> None:
    adapter = _broken(tmp_path)
    evaluator = Plasticity(task=TASK, trainer=Counting(**STEPS), test_rows=30)
    whole, _ = _measured(evaluator, tmp_path / "a", adapter)
    (tmp_path / "a" / "scratch" / "after" / "results.json").unlink()
    Counting.fits.clear()
    again, _ = _measured(evaluator, tmp_path / "a", adapter)
    assert [folder.parent.name for folder in Counting.fits] == ["after"] and again == whole


def test_plasticity_task_that_is_too_small_is_refused_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps([{"instruction": "Say.", "output": str(number)} for number in range(5)]))
    with pytest.raises(UserError, match=r"task\.json, has 5 samples: test_rows=5 leaves none to train on"):
        Plasticity(task=Alpaca(path=file), trainer=TRAINER, test_rows=5).check()
    with pytest.raises(UserError, match="wants a trainer that trains"):
        Plasticity(task=Alpaca(path=file), trainer=NoTrainer(), test_rows=4).check()


@pytest.mark.parametrize(
    ("trainer", "wanted"),
    [
        (LoRATrainer(**STEPS, order="curriculum"), r"needs scores \(ifd\) beside them: choose trainer\.order"),
        (DPOTrainer(**STEPS), "needs preference pairs beside them"),
        (QLoRATrainer(**STEPS), "trains the student with its adapter merged in, which its trainer can't"),
    ],
)
def test_plasticity_trainer_that_needs_more_than_samples_is_refused(trainer: Any, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        Plasticity(task=TASK, trainer=trainer, test_rows=30).check()


def test_plasticity_student_that_the_trainer_can_not_train_is_refused_before_any_stage_runs() -> None:
    half = Student(path=str(BASE), device="cpu", dtype="float16")
    evaluator = Plasticity(task=TASK, trainer=TRAINER, test_rows=30)
    source = Source(data=TASK)
    first = Select(phase="instruction", rows=source, selector=Never())
    second = Select(phase="response", rows=source, before=first, selector=Never())
    training = Assemble(rows=source, decisions=second, keep={"none": KeepAll()}, assembly=Assembly())
    trained = Train(training=training, trainer=NoTrainer(), student=half, template=TEMPLATE)
    stage = Evaluate(label="plasticity", evaluator=evaluator, trained=trained, training=training, engine=HERE)
    with pytest.raises(UserError, match="float16 can't be trained in"):
        stage.check()
    replace(stage, trained=replace(trained, student=START)).check()


def test_new_task_is_rightly_answered_and_new(tiny_models: Mapping[str, Path]) -> None:
    samples = list(TASK.samples())
    tasks = [parse_instruction(sample.instruction) for sample in samples]
    assert len({sample.instruction for sample in samples}) > 50
    for sample, task in zip(samples, tasks, strict=True):
        assert task is not None and task.operations == ("trade_ends",)
        assert sample.response.startswith(truth(task)) and sample.reference == truth(task)
    assert list(NewTask(count=60, world_seed=1).samples()) != samples
