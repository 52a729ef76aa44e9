"""The student's embeddings against a naive oracle: one text at a time, in plain transformers, averaged by hand."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from srecycle.embedder.base import TextEncoder, Tokenized, Vectors
from srecycle.embedder.student import HiddenStates, StudentEmbedder
from srecycle.student import Student

FIRST = {"llama": "<s>", "gpt2": "<|endoftext|>", "qwen2": "<|im_end|>", "plain": None}
TEXTS = [
    "Give three tips for staying healthy.",
    "Eat a balanced diet and make sure to include plenty of fruits and vegetables. " * 2,
    "x",
    "</s> is <s> a token <|endoftext|> by name",
    "Bonjour \U0001f600",
    "مرحبا",
    "Name the capital of France.",
    "  spaces\n\n\tand lines ",
]


def _oracle(folder: Path, text: str, first: str | None, max_length: int = 256) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    begin = [] if first is None else [tokenizer.convert_tokens_to_ids(first)]
    ids = begin + tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([ids[:max_length]]), output_hidden_states=True).hidden_states[-1][0]
    return states[len(begin) :].double().mean(dim=0).numpy()


def _encoder(folder: Path, **settings: Any) -> TextEncoder:
    return StudentEmbedder().load(Student(path=str(folder), device="cpu", threads=1, **settings))


@pytest.mark.parametrize("model", FIRST)
def test_student_embedder_equals_the_oracle_for_each_budget_and_order(
    tiny_models: Mapping[str, Path], model: str
) -> None:
    wanted = {text: _oracle(tiny_models[model], text, FIRST[model]) for text in TEXTS}
    encoder = _encoder(tiny_models[model])
    for budget in (1, 60, 100_000):
        texts = random.Random(budget).sample(TEXTS, len(TEXTS))
        encoder.batch_tokens = budget
        found = encoder.embed(texts)
        assert found.vectors.dtype == np.float32 and found.status.tolist() == ["ok"] * len(TEXTS)
        assert not found.truncated.any()
        assert found.vectors == pytest.approx(np.stack([wanted[text] for text in texts]), abs=1e-5)


def test_student_embedder_batches_hold_what_the_budget_allows_and_no_text_twice(
    tiny_models: Mapping[str, Path],
) -> None:
    encoder = _Watched(tiny_models["llama"])
    for budget, least in ((1, len(TEXTS)), (60, 3), (100_000, 1)):
        encoder.batch_tokens = budget
        encoder.seen = []
        encoder.embed([*TEXTS, *TEXTS])
        assert sum(map(len, encoder.seen)) == len(TEXTS) and len(encoder.seen) >= least
        assert all(len(one) == 1 or len(one) * max(one) <= budget for one in encoder.seen)
    assert len(encoder.seen) == 1


def test_student_embedder_what_is_too_long_is_cut_as_the_oracle_cuts_and_told(
    tiny_models: Mapping[str, Path],
) -> None:
    found = _encoder(tiny_models["llama"], max_length=16).embed(TEXTS)
    for text, vector in zip(TEXTS, found.vectors, strict=True):
        assert vector == pytest.approx(_oracle(tiny_models["llama"], text, "<s>", 16), abs=1e-5)
    lengths = [one.tokens for one in _encoder(tiny_models["llama"]).tokenized(TEXTS)]
    assert found.truncated.tolist() == [length > 16 for length in lengths]
    assert 0 < found.truncated.sum() < len(TEXTS)


def test_student_embedder_texts_without_tokens_and_broken_states_are_reasons(tiny_models: Mapping[str, Path]) -> None:
    encoder = _Watched(tiny_models["llama"])
    found = encoder.embed(["", TEXTS[0]])
    assert found.status.tolist() == ["too_short", "ok"] and np.isnan(found.vectors[0]).all()
    assert encoder.embed([]).vectors.shape == (0, 48)
    with torch.no_grad():
        encoder.loaded.model.model.norm.weight.fill_(float("nan"))
    broken = encoder.embed([TEXTS[0]])
    assert broken.status.tolist() == ["non_finite"] and np.isnan(broken.vectors).all()


class _Watched(HiddenStates):
    """Tells of its batches, and has memory for `room` tokens at a time."""

    def __init__(self, folder: Path, room: int = 10**9) -> None:
        self.seen: list[list[int]] = []
        self.room = room
        self.loaded = Student(path=str(folder), device="cpu", threads=1).load()
        super().__init__(self.loaded, "tiny")

    def vectors(self, batch: Sequence[Tokenized]) -> Vectors:
        lengths = [one.tokens for one in batch]
        if len(lengths) * max(lengths) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.seen.append(lengths)
        return super().vectors(batch)


def test_student_embedder_out_of_memory_halves_batches_down_to_a_reason(tiny_models: Mapping[str, Path]) -> None:
    plain = _Watched(tiny_models["llama"])
    expected = plain.embed(TEXTS)
    tight = _Watched(tiny_models["llama"], room=60)
    tight.batch_tokens = 10_000
    found = tight.embed(TEXTS)
    lengths = np.array([one.tokens for one in plain.tokenized(TEXTS)])
    assert found.status.tolist() == np.where(lengths > 60, "out_of_memory", "ok").tolist()
    assert 0 < np.count_nonzero(lengths > 60) < len(TEXTS)
    fits = lengths <= 60
    assert found.vectors[fits] == pytest.approx(expected.vectors[fits], abs=1e-5)
    assert tight.splits > 0 and tight.batch_tokens <= 10_000 / 2


def test_student_embedder_other_errors_are_not_taken_for_a_lack_of_memory(tiny_models: Mapping[str, Path]) -> None:
    encoder = _Watched(tiny_models["llama"])
    encoder.loaded.model.model.norm.weight = torch.nn.Parameter(torch.ones(5))
    with pytest.raises(RuntimeError, match="size"):
        encoder.embed(TEXTS)


@pytest.mark.parametrize("length", [4, 16, 300])
def test_projection_is_drawn_by_its_seed_and_never_lengthens(length: int) -> None:
    embedder = StudentEmbedder(dimensions=16)
    matrix = embedder.projection(length)
    assert matrix.shape == (length, min(length, 16))
    assert (matrix == StudentEmbedder(dimensions=16).projection(length)).all()
    other = StudentEmbedder(dimensions=16, projection_seed=1).projection(length)
    assert (matrix == other).all() == (length <= 16)


def test_projection_keeps_inner_products() -> None:
    wide = StudentEmbedder(dimensions=1000).projection(1100)[:50]
    assert wide @ wide.T == pytest.approx(np.eye(50), abs=0.2)
