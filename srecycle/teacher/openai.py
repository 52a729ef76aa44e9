"""Any OpenAI-compatible chat endpoint: OpenAI, vLLM, SGLang, llama.cpp, `transformers serve`, gateways.

The key is read from the environment variable that `key_variable` names when the first request is sent, and stands
nowhere else. Our retry policy is the only one (the client's own is off): rate limits, server errors, timeouts and
broken connections are tried again with exponential backoff and jitter; a request that the server refuses for good stops
the run with the server's words.
"""

import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from srecycle.config import component, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import OK
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger, ledger_key

if TYPE_CHECKING:
    from openai import OpenAI

Price = Annotated[float, Field(ge=0)]
Url = Annotated[str, Field(pattern=r"^https?://[^@/]+(/[^@]*)?$")]
"""With a scheme, and without a user's name or password in it: those would end in logs."""

_RETRIED = (408, 409, 429)
_LONGEST_WAIT = 60.0


@component
class OpenAITeacher(Teacher):
    """A chat model behind an OpenAI-compatible server.

    Prices are dollars per million tokens, `timeout` is seconds per request. `provider` names the server in the ledger
    and in keys (default: the host of `base_url`), so that a moved server keeps its replies.
    """

    model: str
    base_url: Url | None = runtime(None)
    provider: str | None = None
    key_variable: str = runtime("OPENAI_API_KEY")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = 2048
    max_tokens_field: Annotated[str, Field(pattern=r"^max_(completion_)?tokens$")] = "max_completion_tokens"
    seed: int | None = None
    concurrency: Annotated[int, Field(ge=1)] = runtime(16)
    attempts: Annotated[int, Field(ge=1)] = runtime(6)
    timeout: Annotated[float, Field(gt=0)] = runtime(120.0)
    keep_failed: bool = False
    usd_per_million_input_tokens: Price = runtime(0.0)
    usd_per_million_output_tokens: Price = runtime(0.0)

    def resolved(self) -> Mapping[str, Any]:
        """The provider stands for the server."""
        return {"provider": self._provider}

    def check(self) -> None:
        """Raise UserError where the key's variable is not set."""
        if not os.environ.get(self.key_variable):
            raise UserError(
                f"teacher=openai needs a key in the environment variable {self.key_variable}: export it, or name "
                "another with teacher.key_variable=NAME (any value does for a server that asks for none)"
            )

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars, at the configured prices."""
        paid_in = input_tokens * self.usd_per_million_input_tokens
        return (paid_in + output_tokens * self.usd_per_million_output_tokens) / 1e6

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Answer from the ledger, and ask the server for what is not in it, `concurrency` requests at a time."""
        fields = [self._fields(request) for request in requests]
        keys = [ledger_key(self._provider, field) for field in fields]
        found = {key: reply for key in dict.fromkeys(keys) if (reply := ledger.find(key))}
        missing = {key: field for key, field in zip(keys, fields, strict=True) if key not in found}
        if missing:
            self.check()
            found |= self._ask_all(missing, ledger)
        first = {key: place for place, key in reversed(list(enumerate(keys)))}
        # Equal requests share one reply, which is paid for once.
        return [
            found[key] if first[key] == place else replace(found[key], paid=False) for place, key in enumerate(keys)
        ]

    @property
    def _provider(self) -> str:
        return self.provider or urlsplit(self.base_url or "https://api.openai.com").netloc.rpartition("@")[2]

    def _fields(self, request: Request) -> dict[str, Any]:
        optional = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            self.max_tokens_field: self.max_tokens,
        }
        given = {name: value for name, value in optional.items() if value is not None}
        return {"model": self.model, "messages": request.messages, **given}

    def _ask_all(self, missing: Mapping[str, dict[str, Any]], ledger: Ledger) -> dict[str, Reply]:
        from openai import OpenAI

        client = OpenAI(
            api_key=os.environ[self.key_variable], base_url=self.base_url, timeout=self.timeout, max_retries=0
        )
        stopped = threading.Event()
        with client, ThreadPoolExecutor(self.concurrency) as pool:
            waiting = {
                key: pool.submit(self._ask, client, key, field, ledger, stopped) for key, field in missing.items()
            }
            try:
                replies = {key: future.result() for key, future in waiting.items()}
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        failed = sum(reply.status != OK for reply in replies.values())
        if failed and not self.keep_failed:
            raise UserError(
                f"{self._provider} left {failed} of {len(replies)} requests unanswered after {self.attempts} attempts "
                "each; all replies are kept, so run again to ask for the rest only, or set teacher.keep_failed=true to "
                "go on without them (their rows then carry the reason teacher_failed)"
            )
        return replies

    def _ask(
        self, client: "OpenAI", key: str, fields: dict[str, Any], ledger: Ledger, stopped: threading.Event
    ) -> Reply:
        """Ask until there is a reply, attempts run out, or the run stops. Raises UserError on a final refusal."""
        from openai import APIConnectionError, APIError, APIStatusError

        failed = Reply(text="", finish_reason="", status="teacher_failed")
        for attempt in range(1, self.attempts + 1):
            started = time.monotonic()
            try:
                reply = self._reply(client.chat.completions.create(**fields))
            except (APIError, ValueError) as error:
                seconds = time.monotonic() - started
                told = str(error).replace(client.api_key, "(the key)")  # some servers repeat it
                ledger.fail(key, attempt=attempt, error=f"{type(error).__name__}: {told}", seconds=seconds)
                if isinstance(error, APIStatusError) and error.status_code < 500 and error.status_code not in _RETRIED:
                    raise UserError(
                        f"{self._provider} refused a request for model {self.model} ({error.status_code}): "
                        f"{' '.join(told.split())}; mend the teacher's settings or key (replies so far are kept)"
                    ) from error
                reason = "unreachable" if isinstance(error, APIConnectionError) else type(error).__name__
                if attempt < self.attempts and stopped.wait(_wait(error, attempt)):
                    return failed
            else:
                seconds = time.monotonic() - started
                ledger.keep(key, reply, provider=self._provider, request=fields, seconds=seconds, attempts=attempt)
                # Where somebody else was faster with the same request, theirs stands; ours was paid all the same.
                return replace(ledger.find(key) or reply, paid=True)
        say(f"  a request was given up after {self.attempts} attempts ({reason})")
        return failed

    def _reply(self, completion: Any) -> Reply:
        """Read a completion. Raises ValueError where the server's answer has no text or no usage worth trusting."""
        if not getattr(completion, "choices", None) or completion.choices[0].message is None:
            raise ValueError("the server's answer has no choices")
        choice, usage = completion.choices[0], completion.usage
        input_tokens = (usage and usage.prompt_tokens) or 0
        output_tokens = (usage and usage.completion_tokens) or 0
        return Reply(
            text=(choice.message.content or "").encode("utf-8", "replace").decode(),  # lone surrogates can't be stored
            finish_reason=choice.finish_reason or "",
            paid=True,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            usd=self.price(input_tokens, output_tokens),
        )


def _wait(error: Exception, attempt: int) -> float:
    """Return the seconds to wait before the next attempt: what the server asks for, else backoff with jitter."""
    response = getattr(error, "response", None)
    try:
        asked = float(response.headers["retry-after"])  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError):
        asked = random.uniform(0.5, 1.0) * 2 ** (attempt - 1)
    return min(asked, _LONGEST_WAIT)
