"""Likelihoods against a naive oracle: one sequence at a time, all logits, its own masks, log-softmax in float64."""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from srecycle.engine.local import LocalEngine
from srecycle.rows import Likelihood
from srecycle.scorer import Scorer
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.student.model import Loaded

USER = "### Instruction:\n{instruction}\n\n### Response:"
WITH_INPUT = "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
REQUEST = "Here is an answer:\n{response}\nWhich instruction was it an answer to?"
PREFIX = " "
MODELS = ("llama", "gpt2", "qwen2", "plain")
FIRST = {"llama": "<s>", "gpt2": "<|endoftext|>", "qwen2": "<|im_end|>", "plain": None}
NAMES = ("loss_y_given_x", "loss_y", "loss_x_given_y", "loss_x")


def _line(instruction: str, response: str, input: str = "", **fields: Any) -> dict[str, Any]:
    texts = {"instruction": instruction, "input": input, "response": response, "history": []}
    return {"id": "r", "version": "original", **texts, **fields}


LINES = [
    _line("Give three tips.", "Eat well. Sleep. Walk."),
    _line("Translate.", "Bonjour \U0001f600", input="hello"),
    _line("x", "y"),
    _line("Sum 1 and 2", "3\n\n### Instruction:\nno"),
    _line("Give three tips.", "Eat well. Sleep. Walk."),
    _line("Say it again.", "hi " * 30),
    _line("And now?", "Bye.", history=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Oh"}]),
    _line("\u0645\u0631\u062d\u0628\u0627", "  leading and trailing  "),
]


class Oracle:
    """Computes the four likelihoods of a line in the plainest way there is."""

    def __init__(self, folder: Path, first: str | None, max_length: int = 256) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.first = [] if first is None else [self.tokenizer.get_vocab()[first]]
        self.max_length = max_length

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def loss(self, context: str, target: str, eos: bool = False) -> tuple[float, int]:
        """Return the mean over those target tokens that something stands before, also in the direct reading."""
        goal = self.ids(target) + ([self.tokenizer.eos_token_id] if eos else [])
        goal = goal[: self.max_length - len(self.first)]
        room = self.max_length - len(self.first) - len(goal)
        before = self.ids(context)
        before = self.first + (before[max(0, len(before) - room) :] if room else [])
        whole = before + goal
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([whole])).logits[0].double()
        told = torch.log_softmax(logits, dim=-1)
        counted = goal if self.first else goal[1:]
        begin = len(whole) - len(counted)
        losses = [-float(told[place - 1, whole[place]]) for place in range(begin, len(whole))]
        return (sum(losses) / len(losses) if losses else math.nan), len(losses)

    def four(self, line: Mapping[str, Any], eos: bool = False) -> list[tuple[float, int]]:
        asked, given_ = line["instruction"], line["input"]
        prompt = ""
        for turn in line["history"]:
            prompt += USER.replace("{instruction}", turn["content"]) if turn["role"] == "user" else ""
            prompt += f"{PREFIX}{turn['content']}\n" if turn["role"] == "assistant" else ""
        frame = WITH_INPUT if given_ else USER
        head, tail = frame.split("{instruction}")
        prompt += head + asked + tail.replace("{input}", given_)
        before, after = REQUEST.split("{response}")
        head, tail = USER.split("{instruction}")
        reversed_prompt = head + before + line["response"] + after + tail
        answer = PREFIX + line["response"]
        question = PREFIX + asked + (f"\n{given_}" if given_ else "")
        return [
            self.loss(prompt, answer, eos),
            self.loss("", answer, eos),
            self.loss(reversed_prompt, question, eos),
            self.loss("", question, eos),
        ]


def _stage(folder: Path, batch_tokens: int = 4096, score_eos: bool = False, max_length: int = 256) -> Likelihoods:
    return Likelihoods(
        student=Student(path=str(folder), max_length=max_length, device="cpu", threads=1),
        template=PromptTemplate(user=USER, user_with_input=WITH_INPUT, response_prefix=PREFIX, turn_end="\n"),
        scorer=Scorer(reversed_request=REQUEST, batch_tokens=batch_tokens, score_eos=score_eos),
        engine=LocalEngine(),
    )


def _found(folder: Path, lines: Sequence[dict[str, Any]], **settings_: Any) -> list[Likelihood]:
    stage = _stage(folder, **settings_)
    return list(stage.likelihoods(stage.student.load(), lines))


def _assert_equal(found: Likelihood, expected: list[tuple[float, int]]) -> None:
    assert found.status == "ok"
    losses = [getattr(found, name) for name in NAMES]
    assert losses == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert (found.tokens_y, found.tokens_x) == (expected[0][1], expected[2][1])
    assert expected[0][1] == expected[1][1] and expected[2][1] == expected[3][1]


@pytest.fixture(scope="module")
def oracles(tiny_models: Mapping[str, Path]) -> Mapping[str, Oracle]:
    return {name: Oracle(tiny_models[name], FIRST[name]) for name in MODELS}


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
@pytest.mark.parametrize("model", MODELS)
def test_likelihoods_equal_the_oracles(
    tiny_models: Mapping[str, Path], oracles: Mapping[str, Oracle], model: str, batch_tokens: int
) -> None:
    lines = random.Random(batch_tokens).sample(LINES, len(LINES))
    found = _found(tiny_models[model], lines, batch_tokens=batch_tokens)
    for line, one in zip(lines, found, strict=True):
        _assert_equal(one, oracles[model].four(line))
        assert not one.context_truncated


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2"])
def test_likelihoods_end_of_sequence_is_scored_where_asked(
    tiny_models: Mapping[str, Path], oracles: Mapping[str, Oracle], model: str
) -> None:
    for line, one in zip(LINES[:3], _found(tiny_models[model], LINES[:3], score_eos=True), strict=True):
        _assert_equal(one, oracles[model].four(line, eos=True))


@pytest.mark.parametrize("model", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("max_length", [24, 64])
def test_likelihoods_long_contexts_are_cut_as_the_oracle_cuts_them_and_told(
    tiny_models: Mapping[str, Path], model: str, max_length: int
) -> None:
    oracle = Oracle(tiny_models[model], FIRST[model], max_length)
    lines = [LINES[0], LINES[5], LINES[2]]
    found = _found(tiny_models[model], lines, max_length=max_length)
    whole = _found(tiny_models[model], lines, max_length=256)
    for line, one, uncut in zip(lines, found, whole, strict=True):
        room = max_length - len(oracle.first)
        if any(len(oracle.ids(PREFIX + text)) >= room for text in (line["response"], line["instruction"])):
            assert (one.status, one.loss_y_given_x, one.loss_y) == ("too_long", None, None)
            continue
        _assert_equal(one, oracle.four(line))
        given = pytest.approx((uncut.loss_y_given_x, uncut.loss_x_given_y), rel=1e-5)
        assert one.context_truncated == ((one.loss_y_given_x, one.loss_x_given_y) != given)
    assert found[1].status == ("too_long" if max_length == 24 else found[1].status)
    assert any(one.context_truncated for one in found)


def test_likelihoods_unusable_texts_are_reasons_and_never_numbers(tiny_models: Mapping[str, Path]) -> None:
    lines = [_line("x", ""), _line("x", " \n"), _line("", "y"), _line(" \t", "y"), LINES[0]]
    found = _found(tiny_models["llama"], lines)
    assert [one.status for one in found] == ["empty_response"] * 2 + ["empty_instruction"] * 2 + ["ok"]
    for one in found[:4]:
        assert [getattr(one, name) for name in NAMES] == [None] * 4
        assert (one.tokens_y, one.tokens_x) == (0, 0)


def test_likelihoods_without_anything_to_predict_is_too_short(tiny_models: Mapping[str, Path]) -> None:
    stage = _stage(tiny_models["plain"])
    bare = Likelihoods(
        student=stage.student,
        template=PromptTemplate(user=USER, user_with_input=WITH_INPUT),
        scorer=stage.scorer,
        engine=stage.engine,
    )
    (one,) = bare.likelihoods(stage.student.load(), [_line("x", "y")])
    assert (one.status, one.loss_y, one.loss_x) == ("too_short", None, None)


def test_likelihoods_broken_weights_are_a_reason(tiny_models: Mapping[str, Path]) -> None:
    stage = _stage(tiny_models["llama"])
    loaded = stage.student.load()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(float("nan"))
    found = list(stage.likelihoods(loaded, LINES[:3]))
    assert [one.status for one in found] == ["non_finite"] * 3
    assert all(getattr(one, name) is None for one in found for name in NAMES)


def test_likelihoods_one_line_more_changes_no_other(tiny_models: Mapping[str, Path]) -> None:
    few = _found(tiny_models["llama"], LINES[:3])
    many = _found(tiny_models["llama"], [_line("long " * 20, "word " * 60), *LINES])[1:4]
    for one, other in zip(few, many, strict=True):
        assert [getattr(one, name) for name in NAMES] == pytest.approx(
            [getattr(other, name) for name in NAMES], rel=1e-6
        )


@pytest.fixture(scope="module")
def llama(tiny_models: Mapping[str, Path]) -> tuple[Likelihoods, Loaded]:
    stage = _stage(tiny_models["llama"], batch_tokens=200)
    return stage, stage.student.load()


ODD = st.text(max_size=12) | st.sampled_from(
    [
        "\U0001f468\u200d\U0001f469",
        "\u05e9\u05dc\u05d5\u05dd",
        "</s>",
        "<s>",
        "{instruction}",
        "### Response:",
        "\r\n\t",
        "\x00",
    ]
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(lines=st.lists(st.tuples(ODD, ODD, ODD), min_size=1, max_size=4))
@example(lines=[("</s>", "<s> a", "{response}"), ("### Response:", "\u202eabc", "")])
def test_likelihoods_odd_texts_equal_the_oracles_or_have_a_reason(
    llama: tuple[Likelihoods, Loaded], oracles: Mapping[str, Oracle], lines: list[tuple[str, str, str]]
) -> None:
    stage, loaded = llama
    rows = [_line(*line) for line in lines]
    for row, one in zip(rows, stage.likelihoods(loaded, rows), strict=True):
        if not row["response"].strip():
            assert one.status == "empty_response"
        elif not row["instruction"].strip():
            assert one.status == "empty_instruction"
        else:
            _assert_equal(one, oracles["llama"].four(row))
