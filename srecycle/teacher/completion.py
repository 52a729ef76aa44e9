"""What a chat server's answer says: a completion, or what is wrong with it. Pure reading, no network.

Nothing here is trusted: a body may be cut, be HTML, hold an error under status 200, have no text, or no usage.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_EMPTY_ON_PURPOSE: Final = ("length", "content_filter")
_LONGEST_TOLD: Final = 2000
_LEAST_SECRET: Final = 8


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A completion. `text` is None where the server owes it; `output_tokens` hold the reasoning ones.

    `has_usage` says whether the tokens are the server's: where it tells none they are 0.
    """

    text: str | None
    finish_reason: str
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    has_usage: bool


def read_completion(body: bytes) -> Completion:
    """Read a completion. Raises ValueError where the body is none."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is no JSON: {body.decode(errors='replace')}") from error
    if not isinstance(tree, dict):
        raise ValueError("the answer is no completion")
    if tree.get("error"):
        raise ValueError(f"the answer is an error: {json.dumps(tree['error'])}")
    choices = tree.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise ValueError("the answer has no choices")
    finish_reason = choice.get("finish_reason")
    finish_reason = finish_reason if isinstance(finish_reason, str) else ""
    usage = tree.get("usage")
    input_tokens, output_tokens, reasoning_tokens = _usage(usage if isinstance(usage, dict) else {})
    return Completion(
        text=_text(message, finish_reason),
        finish_reason=finish_reason,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        reasoning_tokens=reasoning_tokens,
        has_usage=input_tokens + output_tokens > 0,
    )


def blotted(text: str, secret: str) -> str:
    """Blot a key out of what a server said: some repeat it. A few letters guard nothing, and stand in any word."""
    return text.replace(secret, "(the key)") if len(secret) >= _LEAST_SECRET else text


def _text(message: Mapping[str, Any], finish_reason: str) -> str | None:
    """Return what was written, or the refusal. A reply that was cut or filtered before its first word is empty."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        content = message.get("refusal") or ("" if finish_reason in _EMPTY_ON_PURPOSE else None)
    if not isinstance(content, str):
        return None
    return content.encode("utf-8", "replace").decode()  # lone surrogates can't be stored


def _usage(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return input, output and reasoning tokens; some servers count the reasoning apart from the output."""
    details = usage.get("completion_tokens_details")
    reasoning = _count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    given, written, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if reasoning and total == given + written + reasoning:
        written += reasoning
    return given, written, reasoning


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e12 else 0


def one_line(text: str) -> str:
    """Put what a server said into one line of bearable length."""
    return " ".join(text.split())[:_LONGEST_TOLD]
