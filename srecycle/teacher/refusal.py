"""What went wrong with an attempt, and what follows from it: try again, go on without the row, or stop the run.

Passing trouble (408, 409, 425, 429, 5xx, timeouts, broken connections, answers that can't be read) is tried again. A
request that the server can't take (400, 413, 422) is its row's trouble, or that of the settings. Everything else that a
server refuses (a wrong key, an unknown model, no money left) stops the run: it would refuse every row. The second half
words the errors that end a run: what was seen, and what to do next.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from srecycle.errors import UserError
from srecycle.teacher.completion import blotted, one_line
from srecycle.teacher.pace import asked_pause

if TYPE_CHECKING:
    from srecycle.teacher.openai import OpenAITeacher

Follows = Literal["again", "pause", "row", "stop"]
_PASSING: Final = (408, 409, 425)
_OF_THE_REQUEST: Final = (400, 413, 422)
_NO_MONEY: Final = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A failed attempt. `asked` is the pause (seconds) that the server asks for, `usd` what it cost all the same."""

    follows: Follows
    name: str
    told: str
    status: int | None = None
    asked: float | None = None
    usd: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)


def trouble_of(error: Exception, secret: str) -> Trouble:
    """Read what the client raised. `secret` is blotted out of what the server said: some repeat the key."""
    from openai import APIConnectionError, APIStatusError

    told = one_line(blotted(str(error), secret))
    if isinstance(error, APIConnectionError | TimeoutError):
        cause = _root(error)  # what broke; on its way up a broken connection is called a timeout
        told = one_line(blotted(f"{type(cause).__name__} {cause}", secret))
        return Trouble(follows="again", name="timeout" if isinstance(cause, TimeoutError) else "unreachable", told=told)
    if not isinstance(error, APIStatusError):
        return Trouble(follows="again", name="unreadable answer", told=told)
    status, headers = error.status_code, error.response.headers
    asked = asked_pause(headers)
    follows: Follows = "stop"
    if {error.code, error.type, *_codes(error.body)} & set(_NO_MONEY):
        status = 402
    elif status == 429 or (status == 503 and asked is not None):
        follows = "pause"
    elif status in _PASSING or status >= 500:
        follows = "again"
    elif status in _OF_THE_REQUEST:
        follows = "row"
    return Trouble(follows=follows, name=str(status), told=told, status=status, asked=asked, headers=headers)


def advice(trouble: Trouble, *, provider: str, model: str, key_variable: str, row: str) -> str:
    """Say in a line why the run stops, and what to mend."""
    why = {
        401: (f"does not accept the key in {key_variable}", "set it to a valid key"),
        402: ("has no money left for this key", "top it up, or use another key"),
        403: (f"does not allow this key to use {model}", "use another key or teacher.model"),
        404: (f"knows no model {model}, or has no such address", "check teacher.model and teacher.base_url"),
    }
    what, mend = why.get(trouble.status or 0, (f"refused a request for model {model}", "mend the teacher's settings"))
    if trouble.follows == "row":
        what = f"can't take the request of {row} for model {model}"
        mend = "mend the teacher's settings, or set teacher.keep_failed=true to go on without such rows"
    return f"{provider} {what} ({trouble.status}): {trouble.told}; {mend} (replies so far are kept)"


def _root(error: BaseException) -> BaseException:
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _codes(body: Any) -> set[str]:
    """Return the codes of an error body, which some servers nest once more."""
    inner = body.get("error", body) if isinstance(body, dict) else None
    found = (inner.get("code"), inner.get("type")) if isinstance(inner, dict) else ()
    return {code for code in found if isinstance(code, str)}


def refused(teacher: "OpenAITeacher", trouble: Trouble, row: str) -> UserError:
    """The server refuses for good."""
    return UserError(
        advice(trouble, provider=teacher.served_by, model=teacher.model, key_variable=teacher.key_variable, row=row)
    )


def used_up(teacher: "OpenAITeacher", spent: float, next_usd: float) -> UserError:
    """The budget has no room for one more request."""
    return UserError(
        f"the budget is used up: {spent:.4f} dollars are spent with {teacher.served_by} in this store, and the next "
        f"request may cost {next_usd:.4f}, with teacher.budget_usd={teacher.budget_usd:g}; all replies are kept: run "
        "again with a higher teacher.budget_usd to go on"
    )


def no_usage(teacher: "OpenAITeacher") -> UserError:
    """What is spent can't be known."""
    return UserError(
        f"{teacher.served_by} tells no token usage, so teacher.budget_usd={teacher.budget_usd:g} can't be kept to: set "
        "teacher.budget_usd=null to go on without a budget (replies so far are kept)"
    )


def come_back(teacher: "OpenAITeacher", trouble: Trouble) -> UserError:
    """The server asks for a pause that is too long to wait through."""
    return UserError(
        f"{teacher.served_by} asks to come back in {trouble.asked:.0f} s ({trouble.told}): run again then (replies so "
        "far are kept)"
    )


def dead(teacher: "OpenAITeacher", trouble: Trouble, count: int) -> UserError:
    """The server answers nobody."""
    return UserError(
        f"{teacher.served_by} left {count} requests in a row unanswered after {teacher.attempts} attempts each "
        f"({trouble.name}: {trouble.told}): see whether it is up and teacher.base_url is right, then run again "
        "(replies so far are kept)"
    )


def unanswered(teacher: "OpenAITeacher", told: str, why: str) -> UserError:
    """Some requests stayed unanswered, and rows must not go without."""
    return UserError(
        f"{teacher.served_by} {told} after {teacher.attempts} attempts each ({why}); all replies are kept, so run "
        "again to ask for the rest only, or set teacher.keep_failed=true to go on without them (their rows then carry "
        "the reason teacher_failed)"
    )
