"""SFT and then DPO of one adapter: what the second phase is measured against, and what a stop in either leaves."""

import math
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from srecycle.student import Student
from srecycle.trainer.chosen import ChosenTrainer
from srecycle.trainer.full import FullTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.qlora import QLoRATrainer
from srecycle.trainer.sft_dpo import SFTThenDPOTrainer
from tests.unit.trainer.conftest import SMALL, Trained
from tests.unit.trainer.paired_bench import PairedBench, dpo, step_figures
from tests.unit.trainer.test_stops import _once_saved, _same, _whole

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(tiny_models: Mapping[str, Path], tmp_path: Path) -> PairedBench:
    student = Student(path=str(tiny_models["llama"]), max_length=64, device="cpu", threads=1)
    return PairedBench(student=student, root=tmp_path)


def _chain(steps: tuple[int, int] = (4, 5), **settings: Any) -> SFTThenDPOTrainer:
    first = LoRATrainer(**({"rank": 2} | SMALL | {"max_steps": steps[0], "dropout": 0.1} | settings))
    return SFTThenDPOTrainer(sft=first, dpo=dpo(max_steps=steps[1], **settings))


def _loaded(bench: PairedBench, adapter: Path) -> Any:
    return Student(path=bench.student.path, max_length=64, device="cpu", threads=1, adapter=str(adapter)).load().model


def test_sft_dpo_second_phase_is_measured_against_the_student_that_the_first_one_made(bench: PairedBench) -> None:
    before, made = bench.train(_chain((4, 2))), bench.train(_chain((4, 3)))
    alone = bench.train(_chain().sft)
    line = made.curve.to_pylist()[-1]
    policy, reference = _loaded(bench, before.folder / "adapter"), _loaded(bench, alone.folder / "adapter")
    expected = step_figures(policy, reference, bench.data(bench.student.load()), 3, "sigmoid", 0.1)
    assert line["loss"] == pytest.approx(expected.pop("loss"), abs=1e-5)
    assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    untrained = bench.student.load().model
    other = step_figures(policy, untrained, bench.data(bench.student.load()), 3, "sigmoid", 0.1)
    assert abs(other["rewards/margins"] - line["rewards/margins"]) > 1e-3  # the plain student is another reference
    first = made.curve.to_pylist()[4]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["rewards/margins"] == 0.0


def test_sft_dpo_curve_has_both_phases_on_one_axis(bench: PairedBench) -> None:
    made, alone = bench.train(_chain()), bench.train(_chain().sft)
    lines = made.curve.to_pylist()
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert [line["phase"] for line in lines] == ["sft"] * 4 + ["dpo"] * 5
    assert [line["loss"] for line in lines[:4]] == alone.losses
    assert all(line["rewards/margins"] is None for line in lines[:4])
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(tokens)
    assert made.metrics["sft/tokens_seen"] == tokens[3]
    assert made.metrics["tokens_seen"] == tokens[-1] - tokens[3]
    assert made.metrics["sft/loss/first"] == alone.losses[0] and made.metrics["loss/first"] == lines[4]["loss"]
    assert made.notes["sft"]["resumed_from_step"] == made.notes["resumed_from_step"] == 0


def test_sft_dpo_artifact_is_one_adapter_and_the_next_round_loads_it(bench: PairedBench) -> None:
    from peft import PeftModel

    made = bench.train(_chain())
    names = {file.relative_to(made.folder).as_posix() for file in made.folder.rglob("*") if file.is_file()}
    assert {name.rpartition("/")[0] for name in names} == {"", "adapter"}
    weights = made.weights()
    assert weights and not [name for name in weights if "ref" in name]
    trained = bench.student.trained(made.folder)
    ids = torch.tensor([[5, 6, 7]])
    applied = PeftModel.from_pretrained(bench.student.load().model, made.folder / "adapter")
    assert list(applied.peft_config) == ["default"]
    with torch.no_grad():
        assert torch.allclose(applied(ids).logits, trained.load().model(ids).logits, atol=1e-4)


def test_sft_dpo_second_phase_begins_on_the_plain_student(bench: PairedBench) -> None:
    chain, work = _chain(), bench.work()
    loaded, plain = bench.student.load(), bench.student.load().model.state_dict()
    chain._supervised(loaded, bench.data(loaded), bench.student, work)
    left = loaded.model.state_dict()
    assert left.keys() == plain.keys() and all(torch.equal(left[name], plain[name]) for name in plain)


@pytest.mark.parametrize("phase", [pytest.param("sft", marks=pytest.mark.slow), "dpo"])
def test_sft_dpo_stopped_in_either_phase_goes_on_to_the_same_weights(bench: PairedBench, phase: str) -> None:
    chain, work = _chain((12, 2) if phase == "sft" else (2, 8), checkpoint_steps=2), bench.work()
    stop = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with _once_saved(work.scratch / phase, stop), pytest.raises(SystemExit):
        bench.train(chain, work)
    assert not list(work.folder.iterdir()) and (work.scratch / "sft" / "done.json").exists() == (phase == "dpo")
    (*_, saved) = _whole(work.scratch / phase)
    resumed = bench.train(chain, work)
    assert _resumed_from(resumed, phase) == saved > 0
    _same(resumed, bench.train(chain))


def _resumed_from(made: Trained, phase: str) -> int:
    return int((made.notes["sft"] if phase == "sft" else made.notes)["resumed_from_step"])


def test_sft_dpo_killed_between_its_phases_does_not_train_the_first_one_again(bench: PairedBench) -> None:
    chain, work = _chain(), bench.work()
    broken = SFTThenDPOTrainer(sft=chain.sft, dpo=dpo(max_steps=5, target_modules="all-linear", learning_rate=1e30))
    with pytest.raises(ValueError, match="training stopped"):
        bench.train(broken, work)
    for file in (work.scratch / "sft" / "checkpoints").rglob("*"):
        file.unlink() if file.is_file() else None
    for file in sorted((work.scratch / "dpo").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    _same(bench.train(chain, work), bench.train(chain))


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ({"dpo": {"rank": 4}}, r"sft.rank=2, dpo.rank=4: both train one adapter"),
        ({"dpo": {"alpha": 8}}, r"sft.alpha=32.0, dpo.alpha=8.0: both train one adapter"),
        ({"sft": {"processes": 2}}, "sft.processes=2: the second phase needs the student here"),
        ({"sft": {"merge": True}}, "sft.merge=true would merge an adapter that is not done"),
    ],
)
def test_sft_dpo_phases_that_can_not_train_one_adapter_are_refused(phases: dict[str, Any], message: str) -> None:
    first = LoRATrainer(**({"rank": 2} | SMALL | phases.get("sft", {})))
    with pytest.raises(ValidationError, match=message):
        SFTThenDPOTrainer(sft=first, dpo=dpo(**phases.get("dpo", {})))


@pytest.mark.parametrize("kind", [QLoRATrainer, FullTrainer])
def test_sft_dpo_first_phase_is_lora_or_sft_chosen(kind: Any) -> None:
    with pytest.raises(ValidationError, match=r"LoRATrainer|the first phase is trainer=lora, or sft_chosen"):
        SFTThenDPOTrainer(sft=kind(**SMALL), dpo=dpo())


def test_sft_dpo_on_chosen_responses_learns_from_one_set_of_pairs() -> None:
    chosen = ChosenTrainer(**SMALL, rank=2, pairs="kept")
    chain = SFTThenDPOTrainer(sft=chosen, dpo=dpo(pairs="kept"))
    assert (chain.reads_rows, _chain().reads_rows) == (False, True)
    with pytest.raises(ValidationError, match=r"sft.pairs=kept, dpo.pairs=decided: both learn from one set of pairs"):
        SFTThenDPOTrainer(sft=chosen, dpo=dpo())


def test_sft_dpo_needs_and_pairs_are_those_of_its_phases() -> None:
    chain = _chain()
    assert chain.needs == () and chain.which_pairs == "decided"
    ordered = LoRATrainer(**({"rank": 2} | SMALL | {"order": "curriculum"}))
    kept = SFTThenDPOTrainer(sft=ordered, dpo=dpo(pairs="kept"))
    assert kept.needs == ("ifd",) and kept.which_pairs == "kept"
