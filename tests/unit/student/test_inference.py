"""Token losses of many architectures, and of odd ones, against each model's own logits; what is done out of memory."""

import random
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from srecycle.engine.local import LocalEngine
from srecycle.scorer import LIKELIHOODS, Scorer
from srecycle.student import Likelihoods, PromptTemplate, Student
from srecycle.student.encoding import Encoded
from srecycle.student.inference import Inference, TokenLosses
from srecycle.student.model import Loaded
from tests.oracle import token_losses

VOCABULARY = 300
SIZE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 48, "initializer_range": 0.3}
WIDE = SIZE | {
    **{"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    **{"max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
HEADS = WIDE | {"head_dim": 12}
WINDOW = 40
LONG = {
    **{"rope_type": "longrope", "rope_theta": 10_000.0, "original_max_position_embeddings": WINDOW},
    **{"short_factor": [1.0] * 6, "long_factor": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]},
}
OLD = {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256}
NEO = {"num_layers": 2, "num_heads": 4, "max_position_embeddings": 256, "window_size": 40}
OPT = {"num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "word_embed_proj_dim": 48, "init_std": 0.3}

MODELS: Mapping[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**WIDE)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**WIDE)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**HEADS)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**OLD, initializer_range=0.3)),
    "gpt_neo": lambda: hf.GPTNeoForCausalLM(hf.GPTNeoConfig(**SIZE, **NEO, attention_types=[[["global", "local"], 1]])),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**WIDE, sliding_window=WINDOW)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**HEADS)),
    "gemma2": lambda: hf.Gemma2ForCausalLM(
        hf.Gemma2Config(**HEADS, sliding_window=WINDOW, attn_implementation="eager")
    ),
    "gemma3": lambda: hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**HEADS, sliding_window=WINDOW)),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**WIDE | {"num_key_value_heads": 4})),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**WIDE)),
    "phi3_long": lambda: hf.Phi3ForCausalLM(
        hf.Phi3Config(**WIDE, original_max_position_embeddings=WINDOW, rope_parameters=LONG)
    ),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(vocab_size=VOCABULARY, hidden_size=48, max_position_embeddings=256, **OPT)
    ),
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(**SIZE, n_layer=2, n_head=4)),
    "cohere": lambda: hf.CohereForCausalLM(hf.CohereConfig(**WIDE, logit_scale=0.25)),
    "granite": lambda: hf.GraniteForCausalLM(hf.GraniteConfig(**WIDE, logits_scaling=3.0)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**WIDE, num_local_experts=4)),
}
SHARING_NOTHING = {"bloom"}  # its positions are counted from a mask of another make


def _sequences() -> list[Encoded]:
    """Families of a common prefix, contexts with several targets, targets alone, and some with no anchor."""
    rng = random.Random(0)

    def draw(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(least, most)))

    found = []
    for preamble in (draw(12, 12), draw(20, 20)):
        for _ in range(12):
            context = (1, *preamble, *draw(8, 20))
            for target in [draw(1, 12) for _ in range(rng.choice([1, 2, 3]))]:
                found.append(Encoded(ids=context + target, target_start=len(context)))
                found.append(Encoded(ids=(1, *target), target_start=1))
                found.append(Encoded(ids=(*target, 3), target_start=0))
    found.append(Encoded(ids=(1, *draw(90, 90)), target_start=70))
    # The last token of all is fed to no model, which thus sees a sequence of WINDOW + 1 within its window.
    return [one for one in found if len(one.ids) != WINDOW + 1]


SEQUENCES = _sequences()


def _loaded(model: Any) -> Loaded:
    return Loaded(model=model.eval(), tokenizer=None, device=torch.device("cpu"), max_length=128)


def _made(name: str) -> Any:
    torch.manual_seed(1)
    return MODELS[name]()


def _assert_exact(model: Any, found: Sequence[TokenLosses | None], sequences: Sequence[Encoded] = SEQUENCES) -> None:
    for sequence, one in zip(sequences, found, strict=True):
        expected = token_losses(model, sequence.ids, sequence.target_start)
        assert one is not None and len(one.losses) == sequence.target_tokens
        assert one.losses.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert one.mean == pytest.approx(sum(expected) / len(expected), rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_inference_equals_the_models_own_logits(name: str) -> None:
    loaded = _loaded(_made(name))
    sharing, plain = Inference(loaded, 400), Inference(loaded, 4000, share=False)
    assert sharing.shares == (name not in SHARING_NOTHING) and not plain.shares
    _assert_exact(loaded.model, sharing.token_losses(SEQUENCES))
    _assert_exact(loaded.model, plain.token_losses(SEQUENCES))
    windowed = name in ("mistral", "gemma2", "gemma3", "gpt_neo", "phi3_long")  # what is past its window is not shared
    least, most = (1, 1) if name in SHARING_NOTHING else (0.6, 0.95) if windowed else (0.3, 0.6)
    assert least <= sharing.computed_tokens / plain.computed_tokens <= most


def test_inference_sequences_beyond_a_models_window_are_among_these() -> None:
    lengths = [len(one.ids) for one in SEQUENCES]
    assert sum(length > WINDOW for length in lengths) > 10 < sum(32 > length > 12 for length in lengths)


class OwnBody(hf.LlamaForCausalLM):
    """Its logits come from more than what `get_decoder` gives."""

    def forward(self, input_ids: Any = None, **named: Any) -> Any:
        output = super().forward(input_ids=input_ids, **named)
        output.logits = output.logits + self.lm_head(self.model.embed_tokens(input_ids))
        return output


class OtherBody(hf.LlamaForCausalLM):
    """`get_decoder` gives a module that it never runs."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.other = hf.LlamaModel(config)

    def get_decoder(self) -> Any:
        return self.other


class NoBody(hf.LlamaForCausalLM):
    def get_decoder(self) -> Any:
        raise NotImplementedError("no decoder")


class _Refusing(hf.LlamaForCausalLM):
    """Takes the masks of two dimensions that tokenizers give, and says so in one way or another."""

    error: type[Exception] = ValueError

    def get_decoder(self) -> Any:
        return self

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **named: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() != 2:
            raise self.error("wrong shape of attention_mask")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **named)


class RefusingByAssertion(_Refusing):
    error = AssertionError


class RefusingByKey(_Refusing):
    error = KeyError


class MaskBlind(hf.LlamaForCausalLM):
    """Passes over a mask in silence."""

    def get_decoder(self) -> Any:
        return self

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **named: Any) -> Any:
        return super().forward(input_ids=input_ids, **named)


class CacheBlind(hf.LlamaForCausalLM):
    """Passes over what it is given as computed before."""

    def get_decoder(self) -> Any:
        return self

    def forward(self, input_ids: Any = None, past_key_values: Any = None, **named: Any) -> Any:
        return super().forward(input_ids=input_ids, **named)


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        *((OwnBody, True), (OtherBody, True), (NoBody, True)),
        *((_Refusing, False), (RefusingByAssertion, False), (RefusingByKey, False)),
        *((MaskBlind, False), (CacheBlind, False)),
    ],
)
def test_inference_odd_model_is_run_as_far_as_it_goes(kind: type[Any], shares: bool) -> None:
    torch.manual_seed(1)
    loaded = _loaded(kind(hf.LlamaConfig(**WIDE)))
    inference = Inference(loaded, 400)
    assert inference.shares == shares
    _assert_exact(loaded.model, inference.token_losses(SEQUENCES))


def test_inference_leaves_a_models_own_forward_in_its_place() -> None:
    """Libraries that place a model on devices put a forward of their own before its class's."""
    loaded = _loaded(_made("llama"))
    body, calls = loaded.model.get_decoder(), []
    inner = body.forward

    def hooked(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return inner(*arguments, **named)

    body.forward = hooked
    found = Inference(loaded, 400).token_losses(SEQUENCES[:3])
    assert body.forward is hooked and len(calls) > 3
    _assert_exact(loaded.model, found, SEQUENCES[:3])


@pytest.mark.parametrize(
    "name", ["llama", pytest.param("opt", id="learned positions"), pytest.param("gpt2", id="absolute positions")]
)
def test_inference_ranks_are_those_of_the_logits_where_asked_for(name: str) -> None:
    loaded = _loaded(_made(name))
    asked = [number % 3 == 0 for number in range(len(SEQUENCES))]
    for sequence, rank, one in zip(
        SEQUENCES, asked, Inference(loaded, 400).token_losses(SEQUENCES, asked), strict=True
    ):
        assert one is not None and (one.ranks is not None) == rank
        if one.ranks is not None:
            with torch.no_grad():
                logits = loaded.model(input_ids=torch.tensor([sequence.ids])).logits[0].double()
            begin = max(sequence.target_start, 1)
            for place, found in zip(range(begin, len(sequence.ids)), one.ranks, strict=True):
                ahead = logits[place - 1] - logits[place - 1, sequence.ids[place]]
                assert 1 + (ahead > 1e-4).sum() <= found <= (ahead > -1e-4).sum()


def test_inference_rank_asked_for_once_is_given_to_each_of_equal_sequences() -> None:
    one = SEQUENCES[0]
    found = Inference(_loaded(_made("llama")), 400).token_losses([one, one, one], [False, True, False])
    assert all(each is not None and each.ranks is not None for each in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_inference_compiled_equals_the_models_own_logits(name: str) -> None:
    loaded = _loaded(_made(name))
    inference = Inference(loaded, 400, compiled=True)
    assert inference.shares
    _assert_exact(_made(name).eval(), inference.token_losses(SEQUENCES))


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_inference_bf16_stays_near_fp32(name: str) -> None:
    """In bf16 prefixes, masks and heads apart must be taken too: a wrong one is off by far more than its rounding."""
    exact = _loaded(_made(name))
    coarse = replace(exact, model=_made(name).to(torch.bfloat16).eval())
    inference = Inference(coarse, 400)
    assert inference.shares
    for one, other in zip(
        Inference(exact, 400).token_losses(SEQUENCES), inference.token_losses(SEQUENCES), strict=True
    ):
        assert one is not None and other is not None
        assert np.abs(one.losses - other.losses).mean() < 0.5


class Memory:
    """A device whose memory holds `tokens` tokens of a batch: more of them end in an error of torch's own."""

    def __init__(self, model: Any, tokens: int, kind: str = "cuda") -> None:
        self.tokens, self.kind = tokens, kind
        self.refused: list[int] = []
        self.largest = 0
        self.held: weakref.ref[torch.Tensor] | None = None
        model.get_decoder().register_forward_pre_hook(self._enter, with_kwargs=True)

    def _enter(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        assert self.held is None or self.held() is None, "what the failed batch held is in memory still"
        size = named["input_ids"].numel()
        if size <= self.tokens:
            self.largest = max(self.largest, size)
            return
        self.refused.append(size)
        half_done = torch.zeros(size)
        self.held = weakref.ref(half_done)
        if self.kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        torch.empty(1 << 55, dtype=torch.uint8)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_inference_out_of_memory_halves_batches_and_changes_no_value(
    kind: str, share: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = _loaded(_made("llama"))
    inference = Inference(loaded, 300, share=share)
    memory = Memory(loaded.model, 150, kind)
    found = inference.token_losses(SEQUENCES)

    assert memory.refused and inference.splits > 0
    assert inference.batch_tokens <= 150
    assert f"out of memory: going on with batches of {inference.batch_tokens} tokens" in capsys.readouterr().err
    assert len(memory.refused) < 4, "the lowered budget should hold for the batches after it"
    memory.tokens = 10_000
    _assert_exact(loaded.model, found)
    again = inference.token_losses(SEQUENCES[::-1])
    assert memory.largest <= 150
    assert [one.mean for one in again if one] == pytest.approx([one.mean for one in found[::-1] if one], rel=1e-6)


@pytest.mark.parametrize("share", [True, False])
def test_inference_sequence_that_never_fits_has_no_result_and_others_have(share: bool) -> None:
    loaded = _loaded(_made("llama"))
    inference = Inference(loaded, 2000, share=share)
    memory = Memory(loaded.model, 60)
    found = inference.token_losses(SEQUENCES)
    assert [one is None for one in found] == [len(one.ids) - 1 > 60 for one in SEQUENCES]
    assert sum(one is None for one in found) == 1
    memory.tokens = 10_000
    _assert_exact(loaded.model, found[:-1], SEQUENCES[:-1])


def test_inference_branches_that_do_not_fit_together_are_computed_apart() -> None:
    loaded = _loaded(_made("llama"))
    inference = Inference(loaded, 2000)
    context = tuple(range(1, 31))
    sequences = [Encoded(ids=(*context, *range(40 + n, 70 + n)), target_start=30) for n in range(3)]
    memory = Memory(loaded.model, 65)
    found = inference.token_losses(sequences)
    assert memory.refused == [30 + 3 * 29]
    memory.tokens = 10_000
    _assert_exact(loaded.model, found, sequences)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shape mismatch"), ValueError("no"), torch.AcceleratorError("CUDA error: an illegal memory access")],
)
def test_inference_other_errors_come_through(error: Exception) -> None:
    loaded = _loaded(_made("llama"))
    inference = Inference(loaded, 2000)

    def fail(module: Any, arguments: Any) -> None:
        raise error

    loaded.model.get_decoder().register_forward_pre_hook(fail)
    with pytest.raises(type(error)) as caught:
        inference.token_losses(SEQUENCES)
    assert caught.value is error


def test_likelihoods_of_what_never_fits_are_out_of_memory_and_no_number(tiny_models: Mapping[str, Any]) -> None:
    stage = Likelihoods(
        student=Student(path=str(tiny_models["llama"]), max_length=256, device="cpu", threads=1),
        template=PromptTemplate(user="Q: {instruction}\nA:", user_with_input="{instruction}{input}"),
        scorer=Scorer(reversed_request="{response}"),
        engine=LocalEngine(),
    )
    loaded = stage.student.load()
    computing = stage.inference(loaded)
    Memory(loaded.model, 80)
    texts = [("Say it", "word"), ("Say it often", "word " * 60), ("Again", "more words")]
    lines = [
        {"id": str(n), "version": "original", "instruction": x, "input": "", "response": y, "history": []}
        for n, (x, y) in enumerate(texts)
    ]
    found = list(stage.likelihoods(computing, lines))
    assert [one.status for one in found] == ["ok", "out_of_memory", "ok"]
    assert [getattr(found[1], name) for name in LIKELIHOODS] == [None] * 7
    assert all(getattr(one, name) is not None for one in (found[0], found[2]) for name in LIKELIHOODS[:6])
    assert found[1].tokens_y > 80
