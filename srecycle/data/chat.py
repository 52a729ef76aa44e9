"""Samples in chat formats: OpenAI's `messages` (role, content) and ShareGPT's `conversations` (from, value).

One turn of a conversation becomes the row: a user message (the instruction) and the assistant's answer to it (the
response). All earlier messages are its history: context for the student, never a target. Later ones are left out and
counted. `last` is where the conversation ends, answered or not; `first` and a number (from 1) count the answered user
messages. A conversation without that turn gives a row with an empty text, which later stages keep and count with that
reason.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field

from srecycle.config import component
from srecycle.data.base import Sample
from srecycle.data.files import optional, text
from srecycle.data.recordset import RecordSet
from srecycle.errors import UserError
from srecycle.rows import Turn

_FIELDS = {"messages": ("role", "content"), "conversations": ("from", "value")}
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@component
class Chat(RecordSet):
    """Chat-format records: JSON Lines, JSON arrays, or parquet. `turn` is the turn that becomes the row."""

    turn: Literal["last", "first"] | Annotated[int, Field(ge=1)] = "last"

    def sample(self, record: dict[str, Any], place: str) -> Sample:
        """Return the conversation's turn with its history."""
        turns = _turns(record, place)
        sample = _last(turns) if self.turn == "last" else _answered(turns, 1 if self.turn == "first" else self.turn)
        return replace(
            sample,
            reference=optional(record, self.reference_field, place),
            source=optional(record, self.source_field, place),
        )


def _last(turns: list[Turn]) -> Sample:
    """Return the turn that the conversation ends with."""
    before = list(turns)
    answer = before.pop().content if before and before[-1].role == "assistant" else ""
    question = before.pop().content if before and before[-1].role == "user" else ""
    return Sample(instruction=question, input="", response=answer, history=tuple(before))


def _answered(turns: list[Turn], number: int) -> Sample:
    """Return the turn of the number-th (from 1) answered user message; without texts where there are not so many."""
    places = [
        place
        for place, (turn, following) in enumerate(pairwise(turns))
        if (turn.role, following.role) == ("user", "assistant")
    ]
    if number > len(places):
        return Sample(instruction="", input="", response="", history=tuple(turns))
    place = places[number - 1]
    return Sample(
        instruction=turns[place].content,
        input="",
        response=turns[place + 1].content,
        history=tuple(turns[:place]),
        later_messages=len(turns) - place - 2,
    )


def _turns(record: dict[str, Any], place: str) -> list[Turn]:
    column = next((name for name in _FIELDS if name in record), None)
    if column is None:
        raise UserError(f"{place} has neither 'messages' nor 'conversations'; it has {', '.join(map(repr, record))}")
    messages, (role_name, content_name) = record[column], _FIELDS[column]
    if not isinstance(messages, list):
        raise UserError(f"{place}: {column!r} should be a list of messages, but is {type(messages).__name__}")
    turns = []
    for index, message in enumerate(messages):
        where = f"{place}, message {index}"
        if not isinstance(message, dict):
            raise UserError(f"{where} should be an object with {role_name!r} and {content_name!r}")
        role = text(message, role_name, where)
        if role not in _ROLES:
            raise UserError(f"{where} has the role {role!r}; known are {', '.join(_ROLES)}")
        turns.append(Turn(role=_ROLES[role], content=text(message, content_name, where)))
    return turns
