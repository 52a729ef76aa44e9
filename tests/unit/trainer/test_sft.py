"""Supervised training against plain PyTorch, and what may not change it: layout, packing, repetition."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.student import Student
from srecycle.student.encoding import Encoded
from srecycle.trainer.full import FullTrainer
from srecycle.trainer.lora import LoRATrainer
from srecycle.trainer.order import arranged
from tests.conftest import ROOT
from tests.unit.trainer.conftest import ROWS, SMALL, Bench, Make


def _loss(model: Any, sequence: Encoded) -> tuple[Any, int]:
    """Return the summed loss of a row's targets and their count, read alone."""
    logits = model(torch.tensor([sequence.ids])).logits[0]
    rows = torch.log_softmax(logits.double(), -1)
    places = range(max(sequence.target_start, 1), len(sequence.ids))
    return -sum(rows[place - 1, sequence.ids[place]] for place in places), len(places)


def _by_hand(bench: Bench, steps: int, rate: float, clip: float) -> list[float]:
    """Train all weights by Adam, row by row: each step's loss is the mean over its target tokens."""
    loaded = bench.student.load()
    model, data = loaded.model.train(), bench.data(loaded)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in arranged("shuffled", data.ids, {}, batch_size=4, seed=0).first(steps).trained():
        parts = [_loss(model, data.sequences[row]) for row in step]
        loss = sum(part for part, _ in parts) / sum(count for _, count in parts)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    "layout", [pytest.param({}, marks=pytest.mark.slow), {"device_batch": 1}, {"packing": True, "device_batch": 1}]
)
def test_full_training_equals_plain_pytorch_however_it_is_laid_out(bench: Bench, layout: dict[str, Any]) -> None:
    settings = SMALL | {"schedule": "constant_with_warmup", "max_steps": 6, "learning_rate": 1e-3} | layout
    made = bench.train(FullTrainer(**settings))
    assert made.losses == pytest.approx(_by_hand(bench, 6, 1e-3, 1.0), abs=1e-5)
    assert made.losses[-1] < made.losses[0]


def test_full_training_leaves_a_model_that_loads_as_the_trained_student(bench: Bench) -> None:
    import pyarrow as pa

    from srecycle.evaluator.base import Subject
    from srecycle.trainer.base import adapter_folder, model_folder

    made = bench.train(FullTrainer(**SMALL))
    model = model_folder(made.folder)
    assert adapter_folder(made.folder) is None and model is not None
    names = {file.name for file in model.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth"))}
    subject = Subject(student=bench.student, template=None, adapter=None, training=pa.table({}), model=model)  # type: ignore[arg-type]
    loaded, plain = subject.load(), bench.student.load()
    weights = made.weights("model/model.safetensors")
    assert subject.is_trained
    assert all(
        torch.equal(value, weights[name]) for name, value in loaded.model.state_dict().items() if name in weights
    )
    assert not torch.equal(loaded.model.model.norm.weight, plain.model.model.norm.weight)
    assert loaded.tokenizer("Give three tips.")["input_ids"] == plain.tokenizer("Give three tips.")["input_ids"]


def test_full_training_of_a_bfloat16_student_moves_what_bfloat16_could_not(bench: Bench) -> None:
    """Steps of 1e-5 are lost in bfloat16 weights of size 1 (their spacing is 8e-3); in float32 they add up."""
    bench.student = Student(path=bench.student.path, max_length=64, device="cpu", threads=1, dtype="bfloat16")
    made = bench.train(FullTrainer(**(SMALL | {"learning_rate": 5e-4, "max_steps": 12})))
    weights = made.weights("model/model.safetensors")
    before = bench.student.load().model.state_dict()
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert not torch.equal(weights["model.norm.weight"], before["model.norm.weight"])


@pytest.mark.parametrize(
    "layout",
    [
        {"device_batch": 1},
        pytest.param({"device_batch": 3}, marks=pytest.mark.slow),
        pytest.param({"packing": True, "device_batch": 1}, marks=pytest.mark.slow),
        pytest.param({"packing": True}, marks=pytest.mark.slow),
    ],
)
def test_lora_layout_moves_no_loss_and_no_key(bench: Bench, lora: Make, layout: dict[str, Any]) -> None:
    plain, laid = bench.train(lora(max_steps=7)), bench.train(lora(max_steps=7, **layout))
    assert laid.losses == pytest.approx(plain.losses, abs=1e-5)
    assert laid.metrics.keys() == plain.metrics.keys()
    assert laid.curve["tokens"].to_pylist() == plain.curve["tokens"].to_pylist()
    assert fingerprint(identity(lora(**layout))) == fingerprint(identity(lora()))


def test_lora_packing_reads_less_padding(bench: Bench, lora: Make) -> None:
    plain, packed = bench.train(lora()), bench.train(lora(packing=True, device_batch=1))
    tokens = plain.metrics["tokens_seen"]
    assert plain.notes["tokens_with_padding"] > packed.notes["tokens_with_padding"] >= tokens
    assert packed.metrics["tokens_seen"] == tokens
    for name in ("tokens_per_second", "tokens_per_second_with_padding", "peak_memory_gib"):
        assert plain.notes[name] > 0


def test_lora_dropout_makes_the_layout_count(lora: Make) -> None:
    keys = [fingerprint(identity(lora(dropout=0.1, device_batch=one))) for one in (1, 2)]
    assert keys[0] != keys[1]


def test_lora_same_seed_gives_the_same_bytes_and_another_seed_others(bench: Bench, lora: Make) -> None:
    first, again, other = (bench.train(lora(dropout=0.1, seed=seed)) for seed in (0, 0, 1))
    assert first.curve.equals(again.curve) and not first.curve.equals(other.curve)
    mine, same = first.weights(), again.weights()
    assert mine.keys() == same.keys() and all(torch.equal(mine[name], same[name]) for name in mine)


def test_lora_artifact_is_an_adapter_its_tokenizer_and_no_pickle(bench: Bench, lora: Make) -> None:
    made = bench.train(lora(merge=True))
    names = {file.relative_to(made.folder).as_posix() for file in made.folder.rglob("*") if file.is_file()}
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/tokenizer.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth"))}
    merged = Student(path=str(made.folder / "merged"), max_length=64, device="cpu").load()
    adapted = Student(path=bench.student.path, adapter=str(made.folder / "adapter"), max_length=64, device="cpu").load()
    ids = torch.tensor([bench.data(merged).sequences[0].ids])
    with torch.no_grad():
        assert torch.allclose(merged.model(ids).logits, adapted.model(ids).logits, atol=1e-5)


def test_lora_curriculum_trains_easy_rows_first_and_counts_those_without_score(bench: Bench, lora: Make) -> None:
    made = bench.train(lora(order="curriculum", match="epochs", max_steps=None, epochs=1))
    loaded = bench.student.load()
    data = bench.data(loaded)
    easiest = sorted((row["ifd"], row["id"]) for row in ROWS if row["ifd"] is not None)[:4]
    parts = [_loss(loaded.model, data.sequences[data.ids.index(identifier)]) for _, identifier in easiest]
    expected = float(sum(part for part, _ in parts).detach()) / sum(count for _, count in parts)  # type: ignore[union-attr]
    assert made.losses[0] == pytest.approx(expected, abs=1e-5)
    assert made.metrics["order/without_ifd"] == 1 and made.metrics["rows_seen"] == len(ROWS)


@pytest.mark.parametrize(
    ("order", "needs"), [("shuffled", ()), ("curriculum", ("ifd",)), ("rare_first", ("perplexity",))]
)
def test_trainer_needs_the_scores_of_its_order(lora: Make, order: str, needs: tuple[str, ...]) -> None:
    assert lora(order=order).needs == needs


@pytest.mark.parametrize(
    ("match", "steps"),
    [
        ({"match": "epochs", "epochs": 2, "max_steps": None}, 6),
        ({"match": "epochs", "epochs": 0.5, "max_steps": None}, 2),
        ({"match": "steps", "max_steps": 4}, 4),
        ({"match": "tokens", "max_tokens": 200, "max_steps": None}, None),
    ],
)
def test_match_ends_training_there_and_says_so(
    bench: Bench, lora: Make, match: dict[str, Any], steps: int | None
) -> None:
    made = bench.train(lora(**match))
    name = match["match"]
    assert made.metrics[f"matched/{name}"] == match[name if name == "epochs" else f"max_{name}"]
    read = made.curve["tokens"].to_pylist()
    assert made.metrics["tokens_seen"] == read[-1] and made.metrics["steps"] == len(read)
    assert made.metrics["target_tokens_seen"] == made.curve["target_tokens"].to_pylist()[-1] < read[-1]
    if steps is None:
        assert read[-2] < 200 <= read[-1]
    else:
        assert len(read) == steps and made.metrics["epochs"] == pytest.approx(steps / 3, abs=1e-4)


def test_match_lengths_that_decide_nothing_do_not_count(lora: Make) -> None:
    keys = {fingerprint(identity(lora(epochs=epochs))) for epochs in (1, 3, None)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "tokens", "max_steps": None}, "match=tokens needs max_tokens"),
        ({"match": "epochs"}, "max_steps=5 decides nothing with match=epochs"),
        ({"processes": 3}, "batch_size=4 can't be split over processes=3"),
        ({"learning_rate": 0.0}, "learning_rate\n.*greater than 0"),
    ],
)
def test_trainer_settings_that_contradict_are_refused(lora: Make, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        lora(**settings)
    with pytest.raises(ValidationError, match=message):
        FullTrainer(**(SMALL | settings))


def test_trainer_check_refuses_what_can_not_train(bench: Bench, lora: Make) -> None:
    with pytest.raises(UserError, match="float16 can't be trained in: use bfloat16 or float32"):
        lora().check(Student(path=bench.student.path, dtype="float16", device="cpu"))
    with pytest.raises(UserError, match=r"accelerate_config=.* counts with trainer.processes > 1"):
        lora(accelerate_config="x.yaml").check(bench.student)
    with pytest.raises(UserError, match=r"trainer.accelerate_config=x.yaml is not a file"):
        lora(accelerate_config="x.yaml", processes=2).check(bench.student)


def test_lora_target_modules_that_the_model_lacks_are_named(bench: Bench, lora: Make) -> None:
    with pytest.raises(UserError, match=r"trainer.target_modules=\('nowhere',\): .*nowhere"):
        bench.train(lora(target_modules=("nowhere",)))
    with pytest.raises(UserError, match=r"trainer.target_modules=\('nowhere',\): .*nowhere"):  # before anything is paid
        lora(target_modules=("nowhere",)).check(bench.student)
    lora(target_modules=("q_proj", "down_proj")).check(bench.student)
    lora(target_modules=r".*\.layers\.0\..*_proj").check(bench.student)


@pytest.mark.parametrize(
    "model", ["gpt2", pytest.param("qwen2", marks=pytest.mark.slow), pytest.param("plain", marks=pytest.mark.slow)]
)
def test_lora_trains_students_without_padding_or_special_tokens_packed_as_unpacked(
    bench: Bench, lora: Make, tiny_models: Any, model: str
) -> None:
    bench.student = Student(path=str(tiny_models[model]), max_length=64, device="cpu", threads=1)
    plain, packed = bench.train(lora(max_steps=3)), bench.train(lora(max_steps=3, packing=True, device_batch=1))
    assert packed.losses == pytest.approx(plain.losses, abs=1e-5)
    assert type(lora()) is LoRATrainer


def test_qlora_check_names_what_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import ModuleSpec

    from srecycle.trainer.qlora import QLoRATrainer

    trainer = QLoRATrainer(**SMALL)
    found = {"bitsandbytes": None}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found[name])
    with pytest.raises(UserError, match="needs the package bitsandbytes, which isn't installed: pip install"):
        trainer.check(bench.student)
    found["bitsandbytes"] = ModuleSpec("bitsandbytes", None)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"trainer=qlora needs a CUDA device, and student\.device=cpu is none here"):
        trainer.check(bench.student)
    with pytest.raises(ValidationError, match="merge=true is not for weights of 4 bits"):
        QLoRATrainer(**SMALL, merge=True)


def test_qlora_in_rounds_is_refused_before_the_first_one() -> None:
    from hydra import compose, initialize_config_dir

    from srecycle.compose import build
    from srecycle.experiment import Experiment

    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        _, built = build(compose("config", ["trainer=qlora", "rounds=2"]))
    assert isinstance(built, Experiment)
    with pytest.raises(UserError, match="rounds=2 merges each round's adapter into the student, and this trainer"):
        built.in_round([])
    assert replace(built, rounds=1).in_round([]).rounds == 1


def test_qlora_trains_an_adapter_on_weights_of_four_bits(bench: Bench) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import LlamaConfig, LlamaForCausalLM

    from srecycle.trainer.qlora import QLoRATrainer

    folder = bench.root / "student"  # bitsandbytes wants layers of a multiple of 32
    tokenizer = bench.student.tokenizer()
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    bench.student = Student(path=str(folder), max_length=64, device="cpu", threads=1, dtype="bfloat16")
    trainer = QLoRATrainer(**(SMALL | {"max_steps": 20}))
    assert trainer.load(bench.student).model.is_loaded_in_4bit
    made = bench.train(trainer)
    assert sum(made.losses[-4:]) < sum(made.losses[:4])
    assert all("lora" in name for name in made.weights())


def test_device_batch_that_can_not_split_a_step_is_told(
    bench: Bench, lora: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.train(lora(device_batch=3, max_steps=1))
    assert "trainer.device_batch=3 can't split the 4 rows of a step: using 1" in capsys.readouterr().err


def test_fewer_rows_than_a_device_computes_at_once_are_trained_on(bench: Bench, lora: Make) -> None:
    bench.rows = ROWS[:3]
    made = bench.train(lora(batch_size=8, device_batch=8, max_steps=3))
    assert made.metrics["rows_seen"] == 9 and made.metrics["epochs"] == 3
