"""A causal language model in this process as the teacher: batched generation that batches don't change.

In: requests. Out: one reply each, kept in the ledger like a paid one, at no price. Identity: the model (by content, as
a student's), how messages become text, and the sampling. Each request's random numbers are its own, seeded by its
ledger key (model, messages, sampling, seed, sample); `generation` says what batches can change all the same.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from srecycle.config import Component, component, identity, runtime
from srecycle.errors import UserError
from srecycle.placeholders import fill, showing
from srecycle.teacher.base import Rates, Reply, Request, Teacher
from srecycle.teacher.generation import Generated, Generator, Prompt, batches
from srecycle.teacher.ledger import Ledger, ledger_key

if TYPE_CHECKING:
    from srecycle.student.model import Loaded, Student

PROVIDER = "transformers"
_GENERATING = threading.Lock()
"""An engine's threads share the one model, and would only take its device from each other."""


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
        for name in ("_generator", "_loaded"):
            self.__dict__.pop(name, None)

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
        return self._student.load()

    @cached_property
    def _generator(self) -> Generator:
        return Generator(self._loaded, temperature=self.temperature, top_p=self.top_p, stops=self.stop)

    def _generate_all(self, missing: Mapping[str, Request], ledger: Ledger) -> dict[str, Reply]:
        prompts = [self._prompt(key, request) for key, request in missing.items()]
        too_long = Reply(text="", finish_reason="", status="too_long")
        replies = {prompt.key: too_long for prompt in prompts if prompt.room < 1}
        for batch in batches([prompt for prompt in prompts if prompt.room > 0], self.batch_tokens):
            if self._interrupted.is_set():
                raise UserError("generating stopped with the run; the same command goes on where it stopped")
            started = time.monotonic()
            generated = self._generator.generate(batch)
            seconds = (time.monotonic() - started) / len(batch)
            for prompt, one in zip(batch, generated, strict=True):
                reply = self._reply(prompt, one)
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

    def _reply(self, prompt: Prompt, generated: Generated) -> Reply:
        return Reply(
            text=generated.text,
            finish_reason=generated.finish_reason,
            paid=True,
            input_tokens=len(prompt.ids),
            output_tokens=generated.output_tokens,
        )


def _folded(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Put system messages at the head of the first message after them."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    first, *others = [dict(message) for message in messages if message["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]
