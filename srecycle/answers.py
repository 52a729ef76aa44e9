"""The final answer inside a text, by a pattern of the user's with one group.

Texts are untrusted and patterns anybody's: only a text's end is searched, and a pattern that backtracks without end
stops the run. It is never taken for a text without an answer, which would depend on the machine's speed.
"""

from functools import cache
from typing import Annotated

import regex
from pydantic import AfterValidator

from srecycle.errors import UserError

SEARCHED = 4000
"""So many characters of a text's end are searched: an answer stands there."""

_SECONDS = 10.0


def _checked(pattern: str) -> str:
    try:
        groups = regex.compile(pattern).groups
    except regex.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"should have one group, which is the answer, and has {groups}: others are written (?:...)")
    return pattern


AnswerPattern = Annotated[str, AfterValidator(_checked)]
"""A regular expression (of the `regex` library) whose only group is the answer."""


def answer_span(pattern: str, text: str) -> tuple[int, int] | None:
    """Return where the answer stands that the last match holds, [begin, end), spaces around it left out.

    None where there is no match or its answer is blank. Raises UserError where the search doesn't come to an end.
    """
    begin = max(len(text) - SEARCHED, 0)
    try:
        spans = [match.span(1) for match in _compiled(pattern).finditer(text[begin:], timeout=_SECONDS)]
    except TimeoutError as error:
        raise UserError(
            f"the pattern {pattern!r} did not come to an end within {_SECONDS:.0f} s on a text of "
            f"{len(text) - begin} characters: write it without repetitions inside repetitions"
        ) from error
    if not spans or spans[-1][0] < 0:
        return None
    first, last = (begin + place for place in spans[-1])
    answer = text[first:last]
    first += len(answer) - len(answer.lstrip())
    return (first, first + len(answer.strip())) if answer.strip() else None


@cache
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern)
