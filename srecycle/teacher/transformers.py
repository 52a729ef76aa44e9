"""A causal language model in this process as the teacher: batched generation that batches don't change.

In: requests. Out: one reply each, kept in the ledger like a paid one, at no price. Identity: the model (by content, as
a student's), how messages become text, and the sampling. A token is drawn from a stream of random numbers that belongs
to its request alone (seeded by the ledger key: model, messages, sampling, seed, sample), so neither batches, order nor
resuming decide what a reply says. What is left is rounding: a batch's shape moves logits by their last bits, which
matters only where a draw falls on the border between two tokens. In float32 that was not seen once in 11,000 tokens; in
bfloat16 it changes most replies, and `batch_tokens=1` (each request by itself) is what keeps them.
"""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from srecycle.config import Component, component, identity, runtime
from srecycle.errors import UserError
from srecycle.placeholders import fill, showing
from srecycle.teacher.base import Rates, Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger, ledger_key

if TYPE_CHECKING:
    import torch

    from srecycle.student.model import Loaded, Student

PROVIDER = "transformers"
_GENERATING = threading.Lock()
"""An engine's threads share the one model, and would only take its device from each other."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One request as the model sees it. `room` is how many tokens the reply may have."""

    key: str
    ids: tuple[int, ...]
    room: int


@component
class TransformersTeacher(Teacher):
    """Generates with a Hugging Face causal language model.

    The tokenizer's chat template makes a conversation of the messages; a tokenizer without one gets `message` for each
    and `opening` at the end. `fold_system` puts the system message before the first user message, for chat templates
    that know no system. A reply ends at the model's end-of-sequence tokens, before the first of the texts in `stop`, or
    after `max_tokens` (then it counts as cut). Temperature 0 takes the likeliest token. `batch_tokens` is how many
    tokens a batch may hold at its end, prompts and replies, padding included.
    """

    model: Component
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    seed: int = 0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    message: Annotated[str, showing("role", "content")] = "{role}: {content}\n"
    opening: str = "assistant:"
    fold_system: bool = False
    batch_tokens: Annotated[int, Field(ge=1)] = runtime(16384)

    def __post_init__(self) -> None:
        """Refuse a model that is no student."""
        if not callable(getattr(self.model, "load", None)):
            raise ValueError(f"model should be a student, not {type(self.model).__name__}")

    def check(self) -> None:
        """Raise UserError where the device isn't there."""
        super().check()
        self._student.check()

    @property
    def deterministic(self) -> bool:
        """Whether it takes the likeliest token."""
        return self.temperature == 0

    def outstanding(self, requests: Sequence[Request], ledger: Ledger) -> list[Request]:
        """Return the requests that are still to be generated, equal ones once: they cost time, if no money."""
        by_key: dict[str, Request] = {}
        for request in requests:
            by_key.setdefault(self._key(request), request)
        known = ledger.known(by_key)
        return [request for key, request in by_key.items() if key not in known]

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return what the ledger says about this model's replies; a batch's replies come at once, so time is theirs."""
        rates = ledger.rates(PROVIDER, self._name)
        query = "SELECT avg(seconds) AS mean FROM replies WHERE provider = ? AND model = ?"
        (line,) = ledger.rows(query, PROVIDER, self._name)
        return rates and replace(rates, calls_per_second=1 / line["mean"] if line["mean"] else 0.0)

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Answer from the ledger, and generate what is not in it; every finished batch is kept at once.

        A prompt that leaves no room for a reply has the status "too_long". Raises UserError where the model can't be
        loaded or its chat template refuses the messages.
        """
        keys = [self._key(request) for request in requests]
        found = ledger.find_all(dict.fromkeys(keys))
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        if missing:
            with _GENERATING:
                found |= self._generate_all(missing, ledger)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        return [
            found[key] if first[key] == place else replace(found[key], paid=False) for place, key in enumerate(keys)
        ]

    def interrupt(self) -> None:
        """End what other threads generate, after the batch that they are at."""
        self._interrupted.set()

    def close(self) -> None:
        """Let go of the model; the next request loads it again."""
        self.__dict__.pop("_loaded", None)

    @cached_property
    def _interrupted(self) -> threading.Event:
        return threading.Event()

    @property
    def _student(self) -> "Student":
        """The model as what it is. Students need reflections, and so teachers: their folder can't be imported here."""
        return cast("Student", self.model)

    def _key(self, request: Request) -> str:
        return ledger_key(PROVIDER, self._fields(request), request.sample)

    def _fields(self, request: Request) -> dict[str, Any]:
        return {"model": self._name, "messages": request.messages, **self._settings}

    @cached_property
    def _name(self) -> str:
        """What the ledger calls the model: the digest of its files, or its hub id and commit."""
        model = identity(self.model)
        return "@".join(str(model[name]) for name in ("path", "hub_revision") if model[name])

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """Everything else that decides a reply. The classes' revisions name stages, and `samples` says how many."""
        own, model = identity(self), identity(self.model)
        unnamed = ("class", "revision", "path", "hub_revision", "samples")
        student = {name: value for name, value in model.items() if name not in unnamed}
        return {"student": student, **{name: value for name, value in own.items() if name not in (*unnamed, "model")}}

    @cached_property
    def _loaded(self) -> "Loaded":
        from transformers import GenerationConfig

        loaded = self._student.load()
        # A model's own defaults (top_k, penalties) would be applied before ours; only what ends a reply is its own.
        loaded.model.generation_config = GenerationConfig(eos_token_id=_ends(loaded) or None, do_sample=False)
        return loaded

    def _generate_all(self, missing: Mapping[str, Request], ledger: Ledger) -> dict[str, Reply]:
        prompts = [self._prompt(key, request) for key, request in missing.items()]
        too_long = Reply(text="", finish_reason="", status="too_long")
        replies = {prompt.key: too_long for prompt in prompts if prompt.room < 1}
        for batch in _batches([prompt for prompt in prompts if prompt.room > 0], self.batch_tokens):
            if self._interrupted.is_set():
                raise UserError("generating stopped with the run; the same command goes on where it stopped")
            started = time.monotonic()
            generated = self._generate(batch)
            seconds = (time.monotonic() - started) / len(batch)
            for prompt, reply in zip(batch, generated, strict=True):
                request = missing[prompt.key]
                ledger.keep(
                    prompt.key,
                    reply,
                    provider=PROVIDER,
                    request=self._fields(request),
                    seconds=seconds,
                    attempts=1,
                    sample=request.sample,
                )
                # Where another process was faster, its reply stands.
                replies[prompt.key] = replace(ledger.find(prompt.key) or reply, paid=True)
        return replies

    def _prompt(self, key: str, request: Request) -> Prompt:
        tokenizer = self._loaded.tokenizer
        messages = _folded(request.messages) if self.fold_system else request.messages
        if getattr(tokenizer, "chat_template", None):
            try:
                text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # a template is a program of its model's makers, and raises what they like
                raise UserError(
                    f"the chat template of {self._student.path} refuses the messages ({error}): if it knows no system "
                    "message, set teacher.fold_system=true"
                ) from error
            ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # the template has its own
        else:
            text = "".join(fill(self.message, message) for message in messages) + self.opening
            ids = tokenizer(text, verbose=False)["input_ids"]
        return Prompt(key=key, ids=tuple(ids), room=min(self.max_tokens, self._loaded.max_length - len(ids)))

    def _generate(self, batch: Sequence[Prompt]) -> list[Reply]:
        """Generate one reply a prompt; a batch that the device has no memory for is halved."""
        import torch

        loaded = self._loaded
        width = max(len(prompt.ids) for prompt in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for line, prompt in enumerate(batch):
            ids[line, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[line, width - len(prompt.ids) :] = 1
        stopper = Stopper(loaded.tokenizer, self.stop, width, len(batch))
        sampler = Sampler([prompt.key for prompt in batch], self.temperature, self.top_p) if self.temperature else None
        try:
            output = loaded.model.generate(
                input_ids=ids.to(loaded.device),
                attention_mask=mask.to(loaded.device),
                max_new_tokens=batch[0].room,
                pad_token_id=(_ends(loaded) or [0])[0],
                logits_processor=[sampler] if sampler else [],
                stopping_criteria=[stopper] if self.stop else [],
            )
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            return [*self._generate(batch[:half]), *self._generate(batch[half:])]
        lines = zip(batch, output[:, width:].cpu().tolist(), stopper.lengths, strict=True)
        return [self._reply(prompt, line[:length], length is not None) for prompt, line, length in lines]

    def _reply(self, prompt: Prompt, generated: Sequence[int], stopped: bool) -> Reply:
        tokenizer = self._loaded.tokenizer
        ends = set(_ends(self._loaded))
        length = next((place for place, token in enumerate(generated) if token in ends), len(generated))
        text = tokenizer.decode(generated[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(
            text=text[: min((place for stop in self.stop if (place := text.find(stop)) >= 0), default=None)],
            finish_reason="stop" if stopped or length < len(generated) else "length",
            paid=True,
            input_tokens=len(prompt.ids),
            output_tokens=length,
        )


class Sampler:
    """Draws each line's next token from that line's own stream, and leaves generation no other choice.

    Follows transformers' interface of logits processors: a batch's ids so far, and its next tokens' logits.
    """

    def __init__(self, seeds: Sequence[str], temperature: float, top_p: float | None) -> None:
        """Start one stream a line of the batch."""
        self._streams = [random.Random(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Return logits that allow the drawn tokens only: where the cumulated probability first passes a draw."""
        import torch

        probabilities = torch.softmax(scores.double() / self._temperature, dim=-1)
        if self._top_p is not None:
            probabilities = _nucleus(probabilities, self._top_p)
        mass = probabilities.cumsum(dim=-1)
        draws = torch.tensor([[stream.random()] for stream in self._streams], dtype=mass.dtype, device=mass.device)
        tokens = torch.searchsorted(mass, draws * mass[:, -1:], right=True).clamp(max=mass.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)


class Stopper:
    """Ends a line whose reply holds a text to stop at, and says after how many tokens it did.

    Follows transformers' interface of stopping criteria, whose own one can't read every tokenizer's vocabulary.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], width: int, lines: int) -> None:
        """Look for `stops` from the token `width` on, where the replies begin."""
        self._tokenizer, self._stops, self._width = tokenizer, stops, width
        self._tail = 2 * max((len(stop.encode()) for stop in stops), default=0)
        self.lengths: list[int | None] = [None] * lines

    def __call__(self, input_ids: "torch.Tensor", scores: Any, **_: Any) -> "torch.Tensor":
        """Return which lines are over."""
        import torch

        written = input_ids.shape[1] - self._width
        ends = input_ids[:, max(self._width, input_ids.shape[1] - self._tail) :].tolist()
        texts = self._tokenizer.batch_decode(ends, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for line, text in enumerate(texts):
            if self.lengths[line] is None and any(stop in text for stop in self._stops):
                self.lengths[line] = written
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


def _nucleus(probabilities: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """Keep the likeliest tokens that together reach `top_p`, the one that reaches it included."""
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return probabilities.masked_fill((before >= top_p).scatter(1, places, before >= top_p), 0.0)


def _ends(loaded: "Loaded") -> list[int]:
    """Return the ids that end a reply: the model's own, and its tokenizer's."""
    configured = loaded.model.generation_config.eos_token_id
    own = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(int(end) for end in (*own, loaded.tokenizer.eos_token_id) if end is not None))


def _folded(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Put system messages at the head of the first message after them."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [dict(message) for message in messages if message["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]


def _batches(prompts: Sequence[Prompt], batch_tokens: int) -> Iterator[list[Prompt]]:
    """Split prompts, longest first, into batches under the budget; a batch's replies all have the same room."""
    batch: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda one: (-len(one.ids), one.room, one.key)):
        full = batch and (len(batch[0].ids) + batch[0].room) * (len(batch) + 1) > batch_tokens
        if batch and (full or prompt.room != batch[0].room):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch
