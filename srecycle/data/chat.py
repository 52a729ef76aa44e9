"""Samples in chat formats: OpenAI's `messages` (role, content) and ShareGPT's `conversations` (from, value).

The last assistant message is the response, the user message before it the instruction, and all earlier messages the
row's history: context for the student, never a target. A conversation that lacks one of the two gives a row with an
empty text, which later stages keep and count with that reason.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from srecycle.config import InputPath, component
from srecycle.data.base import Data, Sample
from srecycle.data.files import records, text
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.rows import Turn

_FIELDS = {"messages": ("role", "content"), "conversations": ("from", "value")}
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@component
class Chat(Data):
    """A chat-format file: JSON Lines, a JSON array, or parquet."""

    path: InputPath

    def samples(self) -> Iterator[Sample]:
        """Yield one sample a conversation."""
        for number, record in enumerate(records(self.path)):
            turns = _turns(record, f"{self.path}: record {number}")
            answer = turns.pop().content if turns and turns[-1].role == "assistant" else ""
            question = turns.pop().content if turns and turns[-1].role == "user" else ""
            yield Sample(instruction=question, input="", response=answer, history=tuple(turns))

    @property
    def description(self) -> str:
        """Name the source in messages."""
        return str(self.path)

    def resolved(self) -> Mapping[str, str]:
        """Identity is the file's content."""
        return {"path": file_digest(self.path)}


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
