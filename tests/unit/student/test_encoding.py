"""From ids to one sequence: what is cut, where, and what is the target."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from srecycle.student.encoding import anchor_ids, anchor_name, encode, token_ids

ANCHOR = (0,)
CONTEXT = (11, 12, 13, 14)
TARGET = (21, 22, 23)


def test_encode_that_fits_joins_everything() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 8)
    assert (one.ids, one.target_start, one.truncated, one.target_tokens) == ((0, *CONTEXT, *TARGET), 5, False, 3)


def test_encode_long_context_loses_its_far_side() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 6)
    assert (one.ids, one.target_start, one.truncated) == ((0, 13, 14, *TARGET), 3, False)


def test_encode_long_target_loses_its_end_and_is_flagged() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 3)
    assert (one.ids, one.target_start, one.truncated) == ((0, 21, 22), 1, True)


@given(
    st.lists(st.integers(0, 9), max_size=12).map(tuple),
    st.lists(st.integers(0, 9), max_size=12).map(tuple),
    st.sampled_from([(), (77,)]),
    st.integers(2, 30),
)
def test_encode_target_ids_are_the_same_with_and_without_context(
    context: tuple[int, ...], target: tuple[int, ...], anchor: tuple[int, ...], max_length: int
) -> None:
    conditional, direct = encode(anchor, context, target, max_length), encode(anchor, (), target, max_length)
    kept = target[: max_length - len(anchor)]
    for one in (conditional, direct):
        assert one.ids[one.target_start :] == kept
        assert len(one.ids) <= max_length
        assert one.truncated == (kept != target)
    before = conditional.ids[len(anchor) : conditional.target_start]
    assert before == context[len(context) - len(before) :]
    assert len(before) == len(context) or len(conditional.ids) == max_length


@pytest.mark.parametrize(
    ("model", "anchor", "name"),
    [
        ("llama", "<s>", "bos"),
        ("gpt2", "<|endoftext|>", "bos"),
        ("qwen2", "<|im_end|>", "eos"),
        ("plain", None, "none"),
    ],
)
def test_anchor_is_bos_else_eos_else_nothing(
    tiny_models: Mapping[str, Path], model: str, anchor: str | None, name: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models[model])
    assert anchor_ids(tokenizer) == (() if anchor is None else (tokenizer.get_vocab()[anchor],))
    assert anchor_name(tokenizer) == name


def test_token_ids_adds_no_special_token(tiny_models: Mapping[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    (ids,) = token_ids(tokenizer, ["Eat fruits \U0001f600"])
    assert tokenizer.decode(ids) == "Eat fruits \U0001f600"
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert token_ids(tokenizer, []) == []
