"""The likelihood of a response's final answer, against a naive oracle with a character mapping of its own."""

import dataclasses
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from srecycle.engine.local import LocalEngine
from srecycle.rows import LIKELIHOOD_SCHEMA, Likelihood, to_table
from srecycle.scorer import Scorer
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.student.inference import Inference
from tests.conftest import SENTENCES
from tests.oracle import ById, Naive, covering

USER = "### Instruction:\n{instruction}\n\n### Response:"
MARKED = r"(?s).*<<(.+)>>"
MODELS = ("llama", "gpt2", "qwen2", "plain", "metaspace", "prepending")
FIRST = {"llama": "<s>", "gpt2": "<|endoftext|>", "qwen2": "<|im_end|>", "plain": None}
RESPONSES = (
    "<<Paris>>",
    "The capital of France is <<Paris>>.",
    "Eat <<well, and sleep>>, then walk.",
    "It is << 42 >> \n",
    "a<<\U0001f600>>b",
    "\U0001f468\u200d\U0001f469<<\U0001f468\u200d\U0001f469>>",
    "\u05e9\u05dc\u05d5\u05dd <<\u05e9\u05dc>>\u05d5\u05dd",
    "<<one>> and <<two>>",
    "e\u0301<<e\u0301>>",
    "<s> says <<</s>>> and ends",
)


def _sentencepiece(folder: Path, scheme: str) -> Path:
    """Make a tiny student whose tokenizer puts a space before each text, and falls back to bytes."""
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "prepending":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=[*special, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([*SENTENCES, "<< >> <<one>> and <<two>>"], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    torch.manual_seed(5)
    size = {"vocab_size": len(fast), "initializer_range": 0.3, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = hf.LlamaConfig(**size, hidden_size=48, intermediate_size=64, max_position_embeddings=256)
    hf.LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tiny_models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    made = {scheme: _sentencepiece(tmp_path_factory.mktemp(scheme), scheme) for scheme in ("metaspace", "prepending")}
    return {**tiny_models, **made}


def _stage(folder: Path, max_length: int = 256, prefix: str = "\n", **scorer: Any) -> Likelihoods:
    return Likelihoods(
        student=Student(path=str(folder), max_length=max_length, device="cpu", threads=1),
        template=PromptTemplate(user=USER, user_with_input=USER + "{input}", response_prefix=prefix),
        scorer=Scorer(**{"reversed_request": "Guess: {response}", "answer_pattern": MARKED} | scorer),
        engine=LocalEngine(),
    )


def _line(response: str) -> dict[str, Any]:
    texts = {"instruction": "Name it.", "input": "", "response": response, "history": []}
    return {"id": "r", "version": "original", **texts}


def _found(stage: Likelihoods, *responses: str, computing: Inference | None = None) -> list[Likelihood]:
    return list(
        stage.likelihoods(computing or stage.inference(stage.student.load()), [_line(one) for one in responses])
    )


class Oracle:
    """The losses of a response's tokens one by one, and which of them hold a character of its answer."""

    def __init__(self, folder: Path, name: str) -> None:
        self.by_id = ById(Naive(folder), FIRST.get(name, "<s>"))
        self.spaced, self.composing = name in ("metaspace", "prepending"), name == "qwen2"

    def loss(self, response: str, prefix: str = "\n") -> float | None:
        text = unicodedata.normalize("NFC", prefix + response) if self.composing else prefix + response
        begin, end = text.rfind("<<") + 2, text.rfind(">>")
        answer = text[begin:end]
        begin += len(answer) - len(answer.lstrip())
        end = begin + len(answer.strip())
        ids = self._ids(text)
        places = covering(self.by_id.naive.tokenizer, ids, text, begin, end)
        first = self.by_id.first
        prompt = self.by_id.ids(USER.replace("{instruction}", "Name it."))
        losses = self.by_id.naive.losses([*first, *prompt, *ids], len(first) + len(prompt))
        counted = [losses[place] for place in places if place or first]
        return float(np.mean(counted)) if counted else None

    def _ids(self, text: str) -> list[int]:
        """Tokenise a text that goes on: where a tokenizer begins each text with a space, without that."""
        if not self.spaced:
            return self.by_id.text_ids(text)
        ids = self.by_id.text_ids("\n" + text)
        return ids[len(self.by_id.text_ids("\n")) :]


@pytest.fixture(scope="module")
def oracles(folders: Mapping[str, Path]) -> Mapping[str, Oracle]:
    return {name: Oracle(folders[name], name) for name in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_answer_loss_equals_the_oracles(folders: Mapping[str, Path], oracles: Mapping[str, Oracle], model: str) -> None:
    found = _found(_stage(folders[model]), *RESPONSES)
    for response, one in zip(RESPONSES, found, strict=True):
        assert one.status == "ok"
        assert one.loss_answer == pytest.approx(oracles[model].loss(response), rel=1e-5), response
    assert len({one.loss_answer for one in found}) == len(RESPONSES)


@pytest.mark.parametrize("model", ["metaspace", "prepending"])
def test_answer_loss_where_the_tokenizer_would_put_a_space_first(
    folders: Mapping[str, Path], oracles: Mapping[str, Oracle], model: str
) -> None:
    responses = ("The capital <<of>> France", "<<The>> capital", "the <<the>>")
    for response, one in zip(responses, _found(_stage(folders[model], prefix=""), *responses), strict=True):
        assert one.loss_answer == pytest.approx(oracles[model].loss(response, ""), rel=1e-5), response


@pytest.fixture(scope="module")
def computing(folders: Mapping[str, Path]) -> Mapping[str, tuple[Likelihoods, Inference]]:
    stages = {name: _stage(folders[name]) for name in ("llama", "metaspace", "prepending")}
    return {name: (stage, stage.inference(stage.student.load())) for name, stage in stages.items()}


# Not the marks of an answer, nor the letter that SentencePiece writes for a space: the oracle can't tell the two apart.
PIECES = st.text(st.characters(exclude_characters="<>\u2581", exclude_categories=["Cs"]), max_size=6) | st.sampled_from(
    ["\U0001f600", "e\u0301", "\u200d", " ", "  a", "\n", "\u00a0b", "the "]
)


@pytest.mark.parametrize("model", ["llama", "metaspace", "prepending"])
@settings(max_examples=25)
@given(before=PIECES, answer=PIECES, after=PIECES)
@example(before="", answer="\U0001f600\U0001f600", after="\U0001f600")
@example(before="\ufb01 \u2460 ", answer="\ufb01\u2460", after="")
def test_answer_loss_of_odd_texts_equals_the_oracles(
    computing: Mapping[str, tuple[Likelihoods, Inference]],
    oracles: Mapping[str, Oracle],
    model: str,
    before: str,
    answer: str,
    after: str,
) -> None:
    stage, inference = computing[model]
    response = f"{before}<<{answer}>>{after}"
    (one,) = _found(stage, response, computing=inference)
    if answer.strip():
        assert one.loss_answer == pytest.approx(oracles[model].loss(response), rel=1e-5)
    else:
        assert one.loss_answer is None


def test_answer_loss_is_null_where_there_is_no_answer_and_nothing_else_changes(folders: Mapping[str, Path]) -> None:
    texts = ("Paris.", "The answer is <<Paris>>.", "<<>>")
    asked, unasked = (_found(_stage(folders["llama"], answer_pattern=one), *texts) for one in (MARKED, None))
    assert [one.loss_answer is None for one in asked] == [True, False, True]
    assert [one.loss_answer for one in unasked] == [None] * 3
    assert [dataclasses.replace(one, loss_answer=None) for one in asked] == unasked
    assert to_table(asked, LIKELIHOOD_SCHEMA)["loss_answer"].null_count == 2


def test_answer_loss_of_an_answer_that_was_cut_is_null(folders: Mapping[str, Path]) -> None:
    begun, whole = f"{'word ' * 60}<<Paris>>", f"<<Paris>> {'word ' * 60}"
    cut = _found(_stage(folders["llama"], max_length=64), begun, whole)
    assert [one.target_truncated for one in cut] == [True, True]
    assert cut[0].loss_answer is None and cut[1].loss_answer is not None


def test_answer_loss_needs_the_answers_last_token(folders: Mapping[str, Path], oracles: Mapping[str, Oracle]) -> None:
    begun = f"{'word ' * 8}<<Paris and more"
    response, needed = f"{begun}>>{' word' * 60}", len(oracles["llama"].by_id.text_ids(f"\n{begun}"))
    seen = set()
    # A target that is cut leaves a quarter of all tokens to its context, and one to BOS.
    for max_length in (one for one in range(2 * needed) if abs(one - one // 4 - 1 - needed) <= 1):
        (one,) = _found(_stage(folders["llama"], max_length=max_length), response)
        assert one.target_truncated and (one.loss_answer is None) == (one.tokens_y < needed)
        seen.add(one.tokens_y - needed)
    assert {-1, 0, 1} <= seen


def test_answer_loss_of_an_answer_that_nothing_stands_before_is_null(folders: Mapping[str, Path]) -> None:
    """Without BOS or EOS the first token of a target counts nowhere, and here it is the whole answer."""
    one, two, second = (
        _found(_stage(folders["plain"], prefix="", answer_pattern=pattern), "~~ or so")[0].loss_answer
        for pattern in ("^(~)", "^(~~)", "^~(~)")
    )
    assert one is None and two == second is not None


@pytest.mark.parametrize("prefix", ["", " ", "\n", "<<no>> "])
def test_answer_loss_is_of_the_response_and_not_of_what_the_template_writes_before_it(
    folders: Mapping[str, Path], oracles: Mapping[str, Oracle], prefix: str
) -> None:
    stage = _stage(folders["llama"], prefix=prefix)
    none, one = _found(stage, "no answer", "it is <<so>>")
    assert none.loss_answer is None
    assert one.loss_answer == pytest.approx(oracles["llama"].loss("it is <<so>>", prefix), rel=1e-5)


@pytest.mark.parametrize("response", [one for one in RESPONSES if "</s>" not in one])
def test_answer_loss_in_the_released_reading_is_that_of_the_joined_texts_tokens(
    folders: Mapping[str, Path], response: str
) -> None:
    """Joined before they are tokenised: the oracle's mapping is of the whole text then."""
    naive = Naive(folders["llama"])
    (one,) = _found(_stage(folders["llama"], compat="reference"), response)
    head = USER.replace("{instruction}", "Name it.") + "\n"
    text = head + response
    begin, end = text.rfind("<<") + 2, text.rfind(">>")
    begin, end = begin + len(text[begin:end]) - len(text[begin:end].lstrip()), begin + len(text[begin:end].rstrip())
    ids = list(naive.tokenizer(text)["input_ids"])
    places = covering(naive.tokenizer, ids, text, begin, end)
    losses = naive.losses(ids, 0)
    assert one.loss_answer == pytest.approx(float(np.mean([losses[place - 1] for place in places])), rel=1e-5)
