"""Divergences against a naive computation that shares nothing with ours; what is held out; what has no figure."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers as hf
import yaml

from srecycle.config import fingerprint, identity
from srecycle.data.alpaca import Alpaca
from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.evaluator.drift import Drift, held_out, ratio_error, windows
from srecycle.rows import TRAINING_SCHEMA, mixed_id
from srecycle.stage import Metrics, Work
from srecycle.store import Store
from srecycle.student import PromptTemplate, Student

FOLDER = Path(__file__).parents[3] / "conf" / "template"
TEMPLATES = sorted({file.stem for file in FOLDER.glob("*.yaml")} - {"chat"})
SAMPLES = [
    ("Give three tips for staying healthy.", "", "Eat a balanced diet and make sure to include vegetables."),
    ("Name the capital of France.", "", "The capital of France is Paris."),
    ("Translate.", "hello", "Bonjour."),
    ("Which instruction was it?", "an answer that somebody gave", "hi"),
]


def _template(name: str) -> PromptTemplate:
    fields = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return PromptTemplate(**{key: value for key, value in fields.items() if key != "_target_"})


def _training(kept: Sequence[bool]) -> pa.Table:
    lines = [
        {"id": f"row{place}", "position": place, "version": "original", "label": "", "reason": "", "history": []}
        | {"instruction": instruction, "input": input, "response": response, "kept": keep}
        for place, ((instruction, input, response), keep) in enumerate(zip(SAMPLES, kept, strict=True))
    ]
    # The schema as it stands today: columns that this test knows nothing of stay empty.
    return pa.Table.from_pylist(lines, schema=pa.schema([field.with_nullable(True) for field in TRAINING_SCHEMA]))


def adapter(model: Path, folder: Path, seed: int = 0) -> Path:
    """Save an adapter of random weights, made by PEFT itself."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    base = hf.AutoModelForCausalLM.from_pretrained(model)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(folder)
    return folder


def _subject(model: Path, adapted: Path | None, name: str = "alpaca", kept: Sequence[bool] = (False,) * 4) -> Subject:
    student = Student(path=str(model), max_length=200, device="cpu", threads=1)
    return Subject(student=student, template=_template(name), adapter=adapted, training=_training(kept))


def _measured(evaluator: Drift, subject: Subject, root: Path) -> tuple[Metrics, pa.Table | None]:
    for name in ("made", "scratch"):
        (root / name).mkdir(parents=True, exist_ok=True)
    work = Work(store=Store(root / "store"), folder=root / "made", scratch=root / "scratch")
    metrics = evaluator.evaluate(subject, work)
    file = root / "made" / "drift.parquet"
    return metrics, pq.read_table(file) if file.exists() else None


def _naive(model: Path, adapted: Path | None, name: str, end: str) -> list[list[dict[str, float]]]:
    """One row and one token at a time, from two models of which one has the adapter merged."""
    from peft import PeftModel

    before = hf.AutoModelForCausalLM.from_pretrained(model).eval()
    after = hf.AutoModelForCausalLM.from_pretrained(model).eval()
    if adapted is not None:
        after = PeftModel.from_pretrained(after, adapted).merge_and_unload()
    tokenizer = hf.AutoTokenizer.from_pretrained(model)
    wording = _template(name)
    rows = []
    for instruction, input, response in SAMPLES:
        prompt = tokenizer.encode(wording.prompt(instruction, input), add_special_tokens=False)
        answer = tokenizer.encode(wording.completion(response) + end, add_special_tokens=False)
        anchor = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
        ids = [*anchor, *prompt, *answer, tokenizer.eos_token_id]
        with torch.no_grad():
            p, q = (torch.softmax(one(torch.tensor([ids])).logits[0].double(), -1).tolist() for one in (after, before))
        tokens = []
        for place in range(1 + len(prompt), len(ids)):
            one, other = p[place - 1], q[place - 1]
            tokens.append(
                {
                    "kl_after_before": sum(a * math.log(a / b) for a, b in zip(one, other, strict=True)),
                    "kl_before_after": sum(b * math.log(b / a) for a, b in zip(one, other, strict=True)),
                    "loss_after": -math.log(one[ids[place]]),
                    "loss_before": -math.log(other[ids[place]]),
                }
            )
        rows.append(tokens)
    return rows


@pytest.mark.parametrize("name", TEMPLATES)
def test_drift_equals_a_naive_computation(name: str, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama" if name != "vicuna" else "qwen2"]
    adapted = adapter(model, tmp_path / "adapter")
    end = _template(name).end
    eos = hf.AutoTokenizer.from_pretrained(model).eos_token
    expected = _naive(model, adapted, name, "" if eos in end else end)
    metrics, table = _measured(Drift(), _subject(model, adapted, name), tmp_path)
    assert table is not None and table["id"].to_pylist() == [f"row{place}" for place in range(4)]
    assert table["target_tokens"].to_pylist() == [len(tokens) for tokens in expected]
    for column in ("kl_after_before", "kl_before_after", "loss_before", "loss_after"):
        means = [sum(token[column] for token in tokens) / len(tokens) for tokens in expected]
        assert table[column].to_pylist() == pytest.approx(means, rel=1e-4, abs=1e-6)
    for column in ("kl_after_before", "kl_before_after"):
        everything = sorted(token[column] for tokens in expected for token in tokens)
        assert metrics[f"{column}/mean"] == pytest.approx(sum(everything) / len(everything), rel=1e-4)
        assert 0 < metrics[f"{column}/p50"] < metrics[f"{column}/p90"] < metrics[f"{column}/p99"]
        assert metrics[f"{column}/p90"] == pytest.approx(np.quantile(everything, 0.9), rel=1e-4)
    assert metrics["kl_after_before/mean"] != pytest.approx(metrics["kl_before_after/mean"], rel=1e-3)
    for when in ("before", "after"):
        losses = [token[f"loss_{when}"] for tokens in expected for token in tokens]
        assert metrics[f"loss/{when}"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        assert 0 < metrics[f"loss/{when}_stderr"] < metrics[f"loss/{when}"]
    assert metrics["rows"] == 4


@pytest.mark.parametrize("batch_tokens", [1, 100_000])
def test_drift_batches_change_nothing(batch_tokens: int, tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["gpt2"]
    subject = _subject(model, adapter(model, tmp_path / "adapter"))
    one, _ = _measured(Drift(), subject, tmp_path / "one")
    other, _ = _measured(Drift(batch_tokens=batch_tokens), subject, tmp_path / "other")
    assert one == pytest.approx(other, rel=1e-4)
    keys = {fingerprint(identity(evaluator)) for evaluator in (Drift(), Drift(batch_tokens=batch_tokens))}
    assert len(keys) == 1


def test_drift_of_the_untuned_student_is_exactly_zero(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Eat a balanced diet. " * 40)
    evaluator = Drift(text_path=text)
    metrics, _ = _measured(evaluator, _subject(tiny_models["llama"], None, kept=(True,) * 4), tmp_path)
    assert metrics["rows"] == 4, "nothing was trained on"
    directions = ("kl_after_before", "kl_before_after")
    assert {metrics[f"{name}/{key}"] for name in directions for key in ("mean", "mean_stderr", "p99")} == {0.0}
    assert metrics["perplexity/before"] == metrics["perplexity/after"] > 1


def test_drift_holds_out_what_was_not_kept(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama"]
    adapted = adapter(model, tmp_path / "adapter")
    some = _subject(model, adapted, kept=(True, False, True, False))
    _, table = _measured(Drift(), some, tmp_path / "some")
    assert table is not None and table["id"].to_pylist() == ["row1", "row3"]
    metrics, table = _measured(Drift(), _subject(model, adapted, kept=(True,) * 4), tmp_path / "none")
    assert metrics == {"reason": "no_held_out_rows"} and table is None


def test_drift_file_is_held_out_with_its_limit_and_refusals(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "held_out.json"
    file.write_text(json.dumps([{"instruction": f"Say {n}.", "output": str(n) if n else " "} for n in range(9)]))
    subject = _subject(tiny_models["llama"], adapter(tiny_models["llama"], tmp_path / "adapter"), kept=(True,) * 4)
    metrics, table = _measured(Drift(held_out=Alpaca(path=file), rows=9), subject, tmp_path / "all")
    assert (metrics["rows"], metrics["refused"]) == (8, 1) and table is not None and len(table) == 8
    drawn = [
        _measured(Drift(held_out=Alpaca(path=file), rows=3, seed=seed), subject, tmp_path / str(seed))[1]
        for seed in (1, 1, 2)
    ]
    ids = [one["id"].to_pylist() for one in drawn if one is not None]
    assert ids[0] == ids[1] != ids[2] and all(len(one) <= 3 for one in ids)


def test_drift_against_another_student_compares_with_that_one(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    model = tiny_models["llama"]
    first, second = (adapter(model, tmp_path / name, seed) for seed, name in enumerate(("first", "second")))
    start = Student(path=str(model), max_length=200, device="cpu", threads=1)
    plain = Student(path=str(model), adapters=(str(first),), max_length=200, device="cpu", threads=1)
    subject = Subject(student=plain, template=_template("alpaca"), adapter=second, training=_training((False,) * 4))
    since_first, _ = _measured(Drift(before=start), subject, tmp_path / "a")
    since_round, _ = _measured(Drift(before=plain), subject, tmp_path / "b")
    by_default, _ = _measured(Drift(), subject, tmp_path / "c")
    assert since_round == by_default
    assert since_first["kl_after_before/mean"] != pytest.approx(since_round["kl_after_before/mean"], rel=0.01)
    # The first student, moved by the first adapter and then by the second, is what a model folder of it would be.
    moved = plain.load()
    moved.model.save_pretrained(tmp_path / "moved")
    moved.tokenizer.save_pretrained(tmp_path / "moved")
    folder = Student(path=str(tmp_path / "moved"), max_length=200, device="cpu", threads=1)
    alone = Subject(student=folder, template=_template("alpaca"), adapter=second, training=_training((False,) * 4))
    assert _measured(Drift(), alone, tmp_path / "d")[0] == pytest.approx(since_round, rel=1e-4)
    assert _measured(Drift(before=start), alone, tmp_path / "e")[0] == pytest.approx(since_first, rel=1e-4)


def test_drift_of_a_student_trained_in_full_compares_two_models(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    model = tiny_models["llama"]
    adapted = adapter(model, tmp_path / "adapter")
    by_adapter, _ = _measured(Drift(), _subject(model, adapted), tmp_path / "a")
    merged = Student(path=str(model), adapter=str(adapted), device="cpu").load()
    merged.model.save_pretrained(tmp_path / "model")
    merged.tokenizer.save_pretrained(tmp_path / "model")
    in_full = replace(_subject(model, None, kept=(True,) * 4), model=tmp_path / "model")
    assert _measured(Drift(), in_full, tmp_path / "b")[0] == {"reason": "no_held_out_rows"}
    in_full = replace(_subject(model, None), model=tmp_path / "model")
    assert _measured(Drift(), in_full, tmp_path / "c")[0] == pytest.approx(by_adapter, rel=1e-4)


def test_drift_against_a_student_of_other_tokens_is_refused(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    other = Student(path=str(tiny_models["gpt2"]), device="cpu")
    with pytest.raises(UserError, match="have other tokenizers, so their predictions can't be compared"):
        _measured(Drift(before=other), _subject(tiny_models["llama"], None), tmp_path)


def test_perplexity_is_that_of_every_token_of_the_text(tiny_models: Mapping[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel

    model = tiny_models["gpt2"]
    adapted = adapter(model, tmp_path / "adapter")
    text = tmp_path / "text.txt"
    text.write_text("Name the capital of France. Below is a request, hello! " * 30)
    subject = _subject(model, adapted)
    metrics, _ = _measured(Drift(text_path=text, text_tokens=500), subject, tmp_path)
    tokenizer = hf.AutoTokenizer.from_pretrained(model)
    ids = tokenizer.encode(text.read_text())[:500]
    plain = hf.AutoModelForCausalLM.from_pretrained(model).eval()
    tuned = PeftModel.from_pretrained(hf.AutoModelForCausalLM.from_pretrained(model), adapted).eval()
    for name, one in (("before", plain), ("after", tuned)):
        losses: list[float] = []
        for place in range(0, 500, 199):
            part = [tokenizer.bos_token_id, *ids[place : place + 199]]
            with torch.no_grad():
                logits = one(torch.tensor([part])).logits[0, :-1].double()
            losses += torch.nn.functional.cross_entropy(logits, torch.tensor(part[1:]), reduction="none").tolist()
        assert metrics["text/tokens"] == len(losses) == 500
        assert metrics[f"perplexity/{name}"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
        assert 0 < metrics[f"perplexity/{name}_stderr"] < metrics[f"perplexity/{name}"]


def test_windows_cover_a_text_once(tiny_models: Mapping[str, Path]) -> None:
    loaded = Student(path=str(tiny_models["plain"]), max_length=16, device="cpu").load()
    text = "a chat between a curious user and an assistant " * 5
    parts = windows(loaded, [text], 10**6)
    ids = loaded.tokenizer.encode(text)
    assert [token for part in parts for token in part.ids] == ids and max(len(part.ids) for part in parts) == 16


@pytest.mark.parametrize("most", [1, 5, 16, 20])
def test_windows_stop_at_their_limit_of_tokens(most: int, tiny_models: Mapping[str, Path]) -> None:
    loaded = Student(path=str(tiny_models["llama"]), max_length=16, device="cpu").load()
    text = "a chat between a curious user and an assistant " * 5
    parts = windows(loaded, [text], most)
    assert [token for part in parts for token in part.target] == loaded.tokenizer.encode(text)[:most]


def test_perplexity_by_line_reads_each_line_alone_up_to_the_limit(
    tiny_models: Mapping[str, Path], tmp_path: Path
) -> None:
    model, lines = tiny_models["llama"], ["Give three tips.", "", "Name the capital of France.", "hello assistant"]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines))
    tokenizer = hf.AutoTokenizer.from_pretrained(model)
    whole = [tokenizer.encode(line, add_special_tokens=False) for line in lines]
    most = sum(map(len, whole)) - 2
    subject = _subject(model, None)
    metrics, _ = _measured(Drift(text_path=text, text_by_line=True, text_tokens=most), subject, tmp_path)
    whole[-1] = whole[-1][:-2]
    plain, losses = hf.AutoModelForCausalLM.from_pretrained(model), list[float]()
    for ids in filter(None, whole):
        with torch.no_grad():
            logits = plain(torch.tensor([[tokenizer.bos_token_id, *ids]])).logits
        losses += torch.nn.functional.cross_entropy(logits[0, :-1], torch.tensor(ids), reduction="none").tolist()
    assert metrics["text/tokens"] == len(losses) == most
    assert metrics["perplexity/after"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)


def test_ratio_error_is_what_repeated_draws_show() -> None:
    rng = np.random.default_rng(0)

    def draw() -> list[Any]:
        rows = rng.normal(size=60)
        return [row + rng.normal(size=size) for row, size in zip(rows, rng.integers(1, 40, 60), strict=True)]

    draws = [draw() for _ in range(400)]
    spread = np.std([np.concatenate(one).mean() for one in draws])
    assert np.mean([ratio_error(one) for one in draws]) == pytest.approx(spread, rel=0.1)
    assert ratio_error([np.ones(3)]) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff", b" \n"])
def test_drift_unreadable_text_is_refused_before_any_work(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"text\.txt"):
        Drift(text_path=file).check()


def test_held_out_row_whose_original_was_mixed_in_is_not_held_out(tiny_models: Mapping[str, Path]) -> None:
    training = _training((True, False, False, False))
    mixed = training.slice(1, 1)
    position = training.column_names.index("id")
    name = mixed_id("original", mixed["id"].to_pylist()[0])
    mixed = mixed.set_column(position, training.schema.field("id"), pa.array([name]))
    mixed = mixed.set_column(training.column_names.index("kept"), training.schema.field("kept"), pa.array([True]))
    subject = replace(_subject(tiny_models["llama"], Path("adapter")), training=pa.concat_tables([training, mixed]))
    found = held_out(subject, None, 10, 0)
    assert [line["id"] for line in found] == training["id"].to_pylist()[2:]
