"""Any OpenAI-compatible chat endpoint: OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, gateways.

The key is read from the environment variable that `key_variable` names when the first request is sent, and stands
nowhere else. Requests go through `dispatch` (threads, connections, stopping), `inquiry` (claims, retries, budget) and
`pace` (rate limits); `refusal` says what follows from an error. Every paid reply is in the ledger before it is used.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue

from srecycle.config import component, runtime
from srecycle.errors import UserError
from srecycle.teacher.base import Rates, Reply, Request, Teacher
from srecycle.teacher.dispatch import ask, stop
from srecycle.teacher.inquiry import Question
from srecycle.teacher.ledger import Ledger, ledger_key

Price = Annotated[float, Field(ge=0)]
Url = Annotated[str, Field(pattern=r"^https?://[^@/?]+(/[^@?]*)?$")]
"""With a scheme, and without a user's name, a password or a query in it: those would end in logs."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,63}$")]
"""Of a variable. A key that was put here by mistake doesn't look like one."""

_OWN_FIELDS = {
    "model": "teacher.model",
    "messages": "the group reflection",
    "temperature": "teacher.temperature",
    "top_p": "teacher.top_p",
    "seed": "teacher.seed",
    "max_tokens": "teacher.max_tokens",
    "max_completion_tokens": "teacher.max_tokens",
}
_NOT_READ = ("stream", "n", "logprobs", "tools")
_UNCAPPED_REPLY = 8192
_USUAL_REPLY = 500
_CHARACTERS_A_TOKEN = 4
_TOKENS_A_MESSAGE = 16


def _extra(body: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse what has a setting of its own, and what asks for an answer that isn't read."""
    for name in body:
        if name in _OWN_FIELDS:
            raise ValueError(f"{name} is set by {_OWN_FIELDS[name]}")
        if name in _NOT_READ:
            raise ValueError(f"{name} asks for answers of another form than one text")
    return body


Extra = Annotated[dict[str, JsonValue], AfterValidator(_extra)]


@component
class OpenAITeacher(Teacher):
    """A chat model behind an OpenAI-compatible server.

    `provider` names the server in the ledger and in keys (default: the host of `base_url`), so that a moved server
    keeps its replies. `extra_body` holds further fields of the request. Prices are dollars per million tokens;
    `budget_usd` is the most that this store's ledger may spend with this provider, over all runs, and at its share
    `budget_warn` a warning is given. `timeout` is seconds a request, from sending it to the answer's last byte. The
    limits a minute are kept besides those that the server tells.
    """

    revision: ClassVar[int] = 2

    model: str
    base_url: Url | None = runtime(None)
    provider: str | None = None
    key_variable: Name = runtime("OPENAI_API_KEY")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = 2048
    max_tokens_field: Annotated[str, Field(pattern=r"^max_(completion_)?tokens$")] = "max_completion_tokens"
    seed: int | None = None
    extra_body: Extra = field(default_factory=dict)
    concurrency: Annotated[int, Field(ge=1)] = runtime(16)
    requests_per_minute: Annotated[float, Field(gt=0)] | None = runtime(None)
    tokens_per_minute: Annotated[float, Field(gt=0)] | None = runtime(None)
    attempts: Annotated[int, Field(ge=1)] = runtime(6)
    timeout: Annotated[float, Field(gt=0)] = runtime(120.0)
    keep_failed: bool = False
    usd_per_million_input_tokens: Price = runtime(0.0)
    usd_per_million_output_tokens: Price = runtime(0.0)
    budget_usd: Annotated[float, Field(gt=0)] | None = runtime(None)
    budget_warn: Annotated[float, Field(gt=0, le=1)] = runtime(0.8)

    def resolved(self) -> Mapping[str, Any]:
        """The provider stands for the server."""
        return {"provider": self.served_by}

    @property
    def served_by(self) -> str:
        """The name of the server in keys and in the ledger."""
        return self.provider or urlsplit(self.base_url or "https://api.openai.com").netloc.rpartition("@")[2]

    def check(self) -> None:
        """Raise UserError where the key's variable is not set, or a budget has no prices to count with."""
        super().check()
        if not os.environ.get(self.key_variable):
            raise UserError(
                f"teacher=openai needs a key in the environment variable {self.key_variable}: export it, or name "
                "another with teacher.key_variable=NAME (any value does for a server that asks for none)"
            )
        if self.budget_usd is not None and not self.price(1, 1):
            raise UserError(
                f"teacher.budget_usd={self.budget_usd:g} could never stop anything, since both prices are 0: set "
                "teacher.usd_per_million_input_tokens and teacher.usd_per_million_output_tokens"
            )

    @property
    def deterministic(self) -> bool:
        """Whether it is asked for the likeliest reply."""
        return self.temperature == 0

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars, at the configured prices."""
        paid_in = input_tokens * self.usd_per_million_input_tokens
        return (paid_in + output_tokens * self.usd_per_million_output_tokens) / 1e6

    def outstanding(self, requests: Sequence[Request], ledger: Ledger) -> list[Request]:
        """Return the requests that the ledger has no reply for, equal ones once."""
        by_key: dict[str, Request] = {}
        for request in requests:
            by_key.setdefault(self._key(request, self._fields(request)), request)
        known = ledger.known(by_key)
        return [request for key, request in by_key.items() if key not in known]

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return what the ledger says about this model at this provider."""
        return ledger.rates(self.served_by, self.model)

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Answer from the ledger, and ask the server for what is not in it.

        Raises UserError where the server refuses for good, the budget is used up, or requests stay unanswered that
        `keep_failed` doesn't let go.
        """
        fields = [self._fields(request) for request in requests]
        keys = [self._key(request, own) for request, own in zip(requests, fields, strict=True)]
        found = ledger.find_all(dict.fromkeys(keys))
        missing = {
            key: self._question(key, own, request)
            for key, own, request in zip(keys, fields, requests, strict=True)
            if key not in found
        }
        if missing:
            self.check()
            found |= self._ask(list(missing.values()), ledger, proven=bool(found))
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        # Equal requests share one reply, which is paid for once.
        return [
            replace(found[key], paid=found[key].paid and first[key] == place, teacher=self.model, key=key)
            for place, key in enumerate(keys)
        ]

    def _ask(self, questions: Sequence[Question], ledger: Ledger, *, proven: bool) -> dict[str, Reply]:
        """Ask the server. `proven` says that it is known to take requests of this kind."""
        return ask(self, os.environ[self.key_variable], questions, ledger, proven)

    def interrupt(self) -> None:
        """End what other threads ask for: signals reach the main thread only."""
        stop(self)

    def _fields(self, request: Request) -> dict[str, Any]:
        optional = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            # With one seed for all of them, samples of a request would be the same text.
            "seed": None if self.seed is None else self.seed + request.sample,
            self.max_tokens_field: self.max_tokens,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"model": self.model, "messages": request.messages, **given, **self.extra_body}

    def _key(self, request: Request, fields: Mapping[str, Any]) -> str:
        return ledger_key(self.served_by, fields, request.sample)

    def _question(self, key: str, fields: Mapping[str, Any], request: Request) -> Question:
        """Bound what a request may cost: no tokenizer in use makes more tokens than there are bytes."""
        contents = [str(message.get("content", "")) for message in request.messages]
        most = sum(len(content.encode()) + _TOKENS_A_MESSAGE for content in contents)
        usual = sum(map(len, contents)) / _CHARACTERS_A_TOKEN + min(self.max_tokens or _USUAL_REPLY, _USUAL_REPLY)
        return Question(
            key=key,
            request=fields,
            sample=request.sample,
            row=f"row {request.row_id} (position {request.position}, {request.phase} phase)",
            usd=self.price(most, self.max_tokens or _UNCAPPED_REPLY),
            tokens=usual,
        )
