"""From ids to one sequence: what is cut, where, and what is the target."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from srecycle.student.encoding import Encoded, anchor_ids, anchor_name, encode, encode_both, token_ids

ANCHOR = (0,)
CONTEXT = (11, 12, 13, 14)
TARGET = (21, 22, 23)
IDS = st.lists(st.integers(1, 9), max_size=24).map(tuple)
ANCHORS = st.sampled_from([(), (77,)])
LENGTHS = st.integers(8, 30)


def test_encode_that_fits_joins_everything() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 8)
    assert (one.ids, one.target_start, one.truncated, one.target_tokens) == ((0, *CONTEXT, *TARGET), 5, False, 3)
    assert (one.context_lost, one.context_gone) == (0, False)


def test_encode_long_context_loses_its_far_side() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 6)
    assert (one.ids, one.target_start, one.truncated) == ((0, 13, 14, *TARGET), 3, False)
    assert (one.context_lost, one.context_gone) == (2, False)


def test_encode_long_target_loses_its_end_and_is_flagged() -> None:
    one = encode(ANCHOR, CONTEXT, TARGET, 3)
    assert (one.ids, one.target_start, one.truncated) == ((0, 21, 22), 1, True)
    assert (one.context_lost, one.context_gone) == (4, True)


@given(IDS, IDS, ANCHORS, st.integers(2, 30))
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


def _read(one: Encoded) -> tuple[int, ...]:
    return one.ids[len(one.ids) - one.target_tokens :]


@given(IDS, IDS.filter(bool), ANCHORS, LENGTHS)
@example((1, 2, 3), (5,) * 8, (), 8)
@example((1, 2, 3), (5,) * 8, (77,), 8)
@example((1, 2, 3), (5,) * 7, (77,), 8)
@example((), (5,) * 20, (), 8)
def test_encode_both_reads_the_same_target_after_its_context_and_alone(
    context: tuple[int, ...], target: tuple[int, ...], anchor: tuple[int, ...], max_length: int
) -> None:
    conditional, direct = encode_both(anchor, context, target, max_length)
    room = max_length - len(anchor)
    left_out = 0 if anchor else 1
    assert max(len(conditional.ids), len(direct.ids)) <= max_length
    assert conditional.truncated == direct.truncated == (len(target) > room)

    assert _read(conditional) == _read(direct)
    kept = target if len(target) <= room else target[: room - min(len(context), max_length // 4)]
    assert _read(direct) == kept[left_out:]
    assert direct.ids == anchor + kept and direct.context_lost == 0 and not direct.context_gone

    before = conditional.ids[len(anchor) : len(conditional.ids) - len(kept)]
    assert conditional.ids == anchor + before + kept
    assert before == context[len(context) - len(before) :], "the context loses its beginning only"
    assert conditional.context_lost == len(context) - len(before)
    assert not conditional.context_lost or len(conditional.ids) == max_length, "cut by more than need be"
    assert conditional.context_gone == (bool(context) and not before)
    if len(target) > room:
        assert len(before) == min(len(context), max_length // 4)


@pytest.mark.parametrize("anchor", [(77,), ()])
def test_encode_both_only_a_target_that_just_fits_leaves_its_context_nothing(anchor: tuple[int, ...]) -> None:
    room = 20 - len(anchor)
    gone = [encode_both(anchor, CONTEXT, (5,) * length, 20)[0].context_gone for length in (room - 1, room, room + 1)]
    assert gone == [False, True, False]


def test_encode_both_without_an_anchor_leaves_the_first_token_out_of_both() -> None:
    conditional, direct = encode_both((), CONTEXT, TARGET, 20)
    assert (conditional.ids, conditional.target_start) == ((*CONTEXT, *TARGET), 5)
    assert (direct.ids, direct.target_start) == (TARGET, 1)
    assert conditional.target_tokens == direct.target_tokens == 2


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


def _sentencepiece_like(scheme: str) -> Any:
    """Make a tokenizer that puts a space before every text, as those of Llama 2 and Mistral do, each in its way."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "\n", "\u2581", *"abcdefgh:.ERS<>/s#", "\u2581a", "ab", "\u2581ab", "\n\n"]
    merges = [("\u2581", "a"), ("a", "b"), ("\u2581a", "b"), ("\n", "\n")]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    if scheme == "legacy":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("scheme", ["legacy", "first", "always"])
@pytest.mark.parametrize("text", ["ab", " ab", "\nab", "a", ":.", "\n\n", ""])
def test_token_ids_continuing_text_gets_no_space_of_the_tokenizers_own(scheme: str, text: str) -> None:
    tokenizer = _sentencepiece_like(scheme)
    (alone,) = token_ids(tokenizer, ["R:"])
    (joint,) = token_ids(tokenizer, ["R:" + text])
    (continuing,) = token_ids(tokenizer, [text], continuing=True)
    if not text.startswith("\n"):  # a line break may melt into the one that is put first: then the text stands alone
        assert alone + continuing == joint
    assert "".join(tokenizer.convert_ids_to_tokens(continuing)).removeprefix("\u2581").replace("\u2581", " ") in (
        text,
        text.removeprefix(" "),
    )


@pytest.mark.parametrize("scheme", ["legacy", "first", "always"])
def test_token_ids_plain_text_holds_no_special_token(scheme: str) -> None:
    tokenizer = _sentencepiece_like(scheme)
    (special,) = token_ids(tokenizer, ["a</s>"])
    (plain,) = token_ids(tokenizer, ["a</s>"], continuing=True, plain=True)
    assert tokenizer.eos_token_id in special
    assert tokenizer.eos_token_id not in plain
    assert token_ids(tokenizer, ["a</s>"]) == [special]  # the tokenizer is left as it was
