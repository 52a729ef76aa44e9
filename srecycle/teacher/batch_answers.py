"""What the files of an ended batch say about its requests. Pure reading, no network.

In: a file's bytes, a JSON object a line, in any order. Out: for each request that is answered, its completion or why it
has none. Lines that can't be read, or that answer nothing that was asked, are as good as absent.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from srecycle.teacher.completion import Completion, blotted, one_line, read_completion

_PASSING: Final = (408, 409, 425, 429)
_NOT_REACHED: Final = ("batch_expired", "batch_cancelled")


@dataclass(frozen=True, kw_only=True)
class Left:
    """Why a request has no reply. A refused one would be refused again. `usd` is what it cost all the same."""

    reason: str
    refused: bool = False
    status: int | None = None
    usd: float = 0.0


def answers(content: bytes, secret: str) -> Iterator[tuple[str, Completion | Left]]:
    """Yield (custom id, what became of the request). `secret` is blotted out of what the server said."""
    for text in content.splitlines():
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(said, dict) and isinstance(said.get("custom_id"), str):
            yield said["custom_id"], _answer(said, secret)


def _answer(said: Mapping[str, Any], secret: str) -> Completion | Left:
    response = said.get("response")
    response = response if isinstance(response, dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status != 200:
        told = said.get("error") or (body.get("error") if isinstance(body, dict) else None)
        code, message = (told.get("code"), told.get("message")) if isinstance(told, dict) else (None, told)
        reason = one_line(blotted(f"{code or status or 'error'}: {message}", secret))
        if not isinstance(status, int) or code in _NOT_REACHED:
            return Left(reason=reason)
        return Left(reason=reason, refused=status < 500 and status not in _PASSING, status=status)
    try:
        return read_completion(json.dumps(body).encode())
    except ValueError as error:
        return Left(reason=one_line(blotted(f"unreadable answer: {error}", secret)), status=status)
