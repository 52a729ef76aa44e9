"""DPO against an independent computation of its loss, and what may not change it: how a step is split, repetition."""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student
from srecycle.trainer.base import training_set
from srecycle.trainer.dpo import DPOTrainer
from srecycle.trainer.pairs import pair_set
from tests.unit.trainer.conftest import SMALL, Bench
from tests.unit.trainer.paired_bench import PairedBench, dpo, step_figures
from tests.unit.trainer.test_stops import _once_saved, _same, _whole
from tests.unit.trainer.test_training_set import ROWS as TURNS
from tests.unit.trainer.test_training_set import TEMPLATES, _template

slow = pytest.mark.slow


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> PairedBench:
    student = Student(path=str(tiny_models["llama"]), max_length=64, device="cpu", threads=1)
    return PairedBench(student=student, root=tmp_path)


def _adapted(bench: Bench, folder: Path) -> Student:
    return Student(path=bench.student.path, max_length=64, device="cpu", threads=1, adapter=str(folder / "adapter"))


@pytest.mark.parametrize(
    ("loss_type", "beta", "smoothing", "sft_weight"),
    [
        pytest.param("sigmoid", 0.1, 0.0, 0.0, marks=slow),
        ("sigmoid", 0.1, 0.0, 0.5),
        pytest.param("ipo", 0.3, 0.0, 0.0, marks=slow),
        pytest.param("hinge", 0.5, 0.0, 2.0, marks=slow),
        pytest.param("robust", 0.2, 0.1, 0.0, marks=slow),
    ],
)
def test_dpo_step_equals_its_formula_computed_pair_by_pair(
    bench: PairedBench, loss_type: Any, beta: float, smoothing: float, sft_weight: float
) -> None:
    """The third step has 3 pairs, computed two and one at a time: each pair weighs the same, each token for SFT."""
    asked = {"loss_type": loss_type, "beta": beta, "label_smoothing": smoothing, "device_batch": 2}
    asked |= {"sft_weight": sft_weight}
    before, made = bench.train(dpo(max_steps=2, **asked)), bench.train(dpo(max_steps=3, **asked))
    reference, policy = bench.student.load(), _adapted(bench, before.folder).load()
    line = made.curve.to_pylist()[2]
    expected = step_figures(policy.model, reference.model, bench.data(reference), 3, loss_type, beta, sft_weight)
    assert line["loss"] == pytest.approx(expected.pop("loss"), abs=1e-5)
    assert {name: line[name] for name in expected} == pytest.approx(expected, rel=2e-5)  # sums of up to 100 nats
    assert abs(expected["rewards/margins"]) > 1e-2
    assert line["phase"] == "dpo" and line["rewards/chosen"] - line["rewards/rejected"] == pytest.approx(
        line["rewards/margins"], abs=1e-6
    )


def test_dpo_first_loss_is_that_of_a_student_that_is_its_own_reference(bench: PairedBench) -> None:
    made = bench.train(dpo(max_steps=1))
    assert made.losses == pytest.approx([math.log(2)], abs=1e-6)
    assert made.curve["rewards/margins"].to_pylist() == [0.0]


@slow
def test_dpo_margins_and_accuracy_rise(bench: PairedBench) -> None:
    made = bench.train(dpo(max_steps=16))
    margins = made.curve["rewards/margins"].to_pylist()
    assert margins[0] == 0.0 and sum(margins[-3:]) / 3 > 0.5
    assert made.metrics["rewards/accuracies/last_tenth"] > 0.9 and made.metrics["loss/last_tenth"] < 0.5
    assert made.metrics["logps/chosen/last_tenth"] - made.metrics["logps/chosen/first"] > (
        made.metrics["logps/rejected/last_tenth"] - made.metrics["logps/rejected/first"]
    )


@slow
@pytest.mark.parametrize("device_batch", [pytest.param(1, marks=slow), 2])
def test_dpo_split_of_a_step_moves_no_figure_and_no_key(bench: PairedBench, device_batch: int) -> None:
    plain, split = bench.train(dpo(max_steps=4)), bench.train(dpo(max_steps=4, device_batch=device_batch))
    for name in ("loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "tokens", "target_tokens"):
        assert split.curve[name].to_pylist() == pytest.approx(plain.curve[name].to_pylist(), rel=1e-5, abs=1e-5)
    assert split.metrics.keys() == plain.metrics.keys()
    assert fingerprint(identity(dpo(device_batch=device_batch))) == fingerprint(identity(dpo()))


@slow
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2", "plain"])
def test_dpo_batch_is_token_by_token_what_supervised_training_would_read(
    tiny_models: Mapping[str, Path], tmp_path: Path, model: str, name: str
) -> None:
    loaded = Student(path=str(tiny_models[model]), max_length=256, device="cpu").load()
    lines = [{**row, "chosen": row["response"], "rejected": "Guten Tag, </s>!"} for row in TURNS]
    pairs = pair_set(loaded, _template(name), lines, {})
    sides = [
        training_set(loaded, _template(name), [{**line, "response": line[side]} for line in lines]).sequences
        for side in ("chosen", "rejected")
    ]
    assert [list(pairs.chosen), list(pairs.rejected)] == sides
    trainer = DPOTrainer(**(SMALL | {"order": "source", "match": "epochs", "max_steps": None}))
    batch = _batch(trainer, loaded, pairs, tmp_path)
    for line, one in enumerate([*sides[0], *sides[1]]):
        size = len(one.ids)
        assert batch["input_ids"][line][:size].tolist() == list(one.ids)
        assert batch["attention_mask"][line].tolist() == [int(at < size) for at in range(batch["input_ids"].shape[1])]
        marked = [one.target_start <= at < size for at in range(batch["input_ids"].shape[1])]
        assert batch["completion_mask"][line].bool().tolist() == marked


def _batch(trainer: DPOTrainer, loaded: Any, pairs: Any, root: Path) -> dict[str, Any]:
    """Return the first batch as TRL's own loader gives it."""
    from srecycle.trainer.arguments import shared_arguments
    from srecycle.trainer.layout import laid_out

    objective = trainer.objective(pairs)
    passes = trainer.passes(objective.data)
    layout = laid_out(passes, pairs.joined, batch_size=4, device_batch=4, processes=1, packing=None)
    arguments = shared_arguments(
        trainer, dtype="float32", device=loaded.device, layout=layout, steps=1, checkpoints=root / "checkpoints"
    )
    made = objective.trainer(trainer.prepared(loaded), arguments, loaded, layout, passes)
    counted = objective.counted(passes, layout)
    batch = dict(next(iter(made.get_train_dataloader())))
    assert counted[0].seen == int(batch["attention_mask"].sum()) and counted[0].padded == batch["input_ids"].numel()
    assert counted[0].target == int(batch["completion_mask"].sum())
    return batch


@slow
@pytest.mark.parametrize("model", ["gpt2", pytest.param("qwen2", marks=slow), pytest.param("plain", marks=slow)])
def test_dpo_trains_students_without_padding_and_leaves_their_tokenizer_alone(
    bench: PairedBench, tiny_models: Mapping[str, Path], model: str
) -> None:
    bench.student = Student(path=str(tiny_models[model]), max_length=64, device="cpu", threads=1)
    made = bench.train(dpo(max_steps=2))
    assert made.losses[0] == pytest.approx(math.log(2), abs=1e-6) and made.losses[1] != made.losses[0]
    saved = Student(path=bench.student.path, max_length=64, device="cpu").tokenizer()
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(made.folder / "adapter").pad_token == saved.pad_token


@slow
def test_dpo_artifact_is_one_adapter_that_loads_as_the_trained_student(bench: PairedBench) -> None:
    import pyarrow as pa

    from srecycle.evaluator.base import Subject
    from srecycle.trainer.base import adapter_folder

    made = bench.train(dpo())
    names = {file.relative_to(made.folder).as_posix() for file in made.folder.rglob("*") if file.is_file()}
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth")) or "/ref" in name}
    subject = Subject(student=bench.student, template=None, adapter=adapter_folder(made.folder), training=pa.table({}))  # type: ignore[arg-type]
    ids = torch.tensor([[5, 6, 7]])
    applied, merged = subject.load().model, bench.student.trained(made.folder).load().model
    with torch.no_grad():
        assert torch.allclose(applied(ids).logits, merged(ids).logits, atol=1e-4)
        assert not torch.allclose(applied(ids).logits, bench.student.load().model(ids).logits, atol=1e-4)


@slow
def test_dpo_same_seed_gives_the_same_bytes_and_another_seed_others(bench: PairedBench) -> None:
    first, again, other = (bench.train(dpo(seed=seed)) for seed in (0, 0, 1))
    _same(again, first)
    assert not first.curve.equals(other.curve)


@slow  # that of SFT and then DPO is stopped by default
def test_dpo_stopped_by_sigterm_goes_on_to_the_same_weights(bench: PairedBench) -> None:
    settings, work = {"max_steps": 16, "checkpoint_steps": 2}, bench.work()
    with _once_saved(work.scratch, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(SystemExit):
        bench.train(dpo(**settings), work)
    (*_, saved) = _whole(work.scratch)
    resumed = bench.train(dpo(**settings), work)
    assert resumed.notes["resumed_from_step"] == saved and 2 <= saved < 16
    _same(resumed, bench.train(dpo(**settings)))


@slow
def test_dpo_loss_that_is_no_number_names_step_and_rows(bench: PairedBench) -> None:
    with pytest.raises(UserError, match=r"training stopped: the (loss|grad_norm) is (nan|inf) at step \d, on rows r\d"):
        bench.train(dpo(learning_rate=1e30, checkpoint_steps=1, max_steps=9))


@slow
def test_dpo_student_whose_loss_is_no_number_is_refused_before_the_first_step(bench: PairedBench) -> None:
    loaded = bench.student.load()
    with torch.no_grad():
        loaded.model.model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match=r"training can't begin: the student's loss is nan on the first pairs \(r\d"):
        dpo().fit(loaded, bench.data(loaded), bench.student, bench.work())


@slow
@pytest.mark.parametrize(
    ("match", "name", "value"),
    [
        pytest.param({"match": "epochs", "epochs": 2, "max_steps": None}, "matched/epochs", 2, marks=slow),
        ({"match": "tokens", "max_tokens": 300, "max_steps": None}, "matched/tokens", 300),
    ],
)
def test_dpo_match_counts_pairs_and_the_tokens_of_both_responses(
    bench: PairedBench, match: dict[str, Any], name: str, value: int
) -> None:
    made = bench.train(dpo(**match))
    pairs = bench.data(bench.student.load()).pairs
    assert pairs is not None
    every = sum(len(one.ids) for one in (*pairs.chosen, *pairs.rejected))
    read = made.curve["tokens"].to_pylist()
    assert made.metrics[name] == value
    if "epochs" in match:
        assert read[-1] == 2 * every and made.metrics["rows_seen"] == 22 and len(read) == 6
    else:
        assert read[-2] < 300 <= read[-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 0.1}, "dropout=0.1: pairs are trained in one process, unpacked, and without dropout"),
        ({"packing": True}, "packing=True: pairs are trained"),
        ({"processes": 2}, "processes=2: pairs are trained"),
        ({"order": "curriculum"}, "order=curriculum sorts by a row's score, and pairs have two"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1 with loss_type=sigmoid: robust and exo_pair need one above 0"),
        ({"loss_type": "exo_pair"}, "label_smoothing=0.0 with loss_type=exo_pair"),
        ({"loss_type": "aot"}, "loss_type"),  # sorts the pairs that are computed together
    ],
)
def test_dpo_settings_that_pairs_can_not_be_trained_with_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        dpo(**settings)
