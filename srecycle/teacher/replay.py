"""Recorded replies: reflections that somebody's teacher wrote earlier, one JSON object a line.

Each has `index` (the 0-based position of the row in its source), `kind` ("instruction", "response_original",
"response_reflected"), `reply` (the full text) and `finish_reason`. A row without a recorded reply goes on with the
reason `not_recorded`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from srecycle.config import InputPath, component
from srecycle.data.files import records, text
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.rows import Phase, Version
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger

_KINDS: Mapping[str, tuple[Phase, Version]] = {
    "instruction": ("instruction", "original"),
    "response_original": ("response", "original"),
    "response_reflected": ("response", "instruction"),
}


@component
class ReplayTeacher(Teacher):
    """Answers from a file of recorded replies. The file's content is identity."""

    path: InputPath

    def resolved(self) -> Mapping[str, str]:
        """Identity is the file's content."""
        if not self.path.is_file():
            raise UserError(f"teacher.path={self.path} is not a file: give the JSON Lines file of recorded replies")
        return {"path": file_digest(self.path)}

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Look every request up by its row's position, phase and base."""
        absent = Reply(text="", finish_reason="", status="not_recorded")
        return [self._recorded.get((request.position, request.phase, request.base), absent) for request in requests]

    @cached_property
    def _recorded(self) -> dict[tuple[int, Phase, Version], Reply]:
        recorded = {}
        for number, record in enumerate(records(self.path)):
            place = f"{self.path}: record {number}"
            kind = text(record, "kind", place)
            if kind not in _KINDS:
                raise UserError(f"{place} has the kind {kind!r}; known are {', '.join(_KINDS)}")
            recorded[(_index(record, place), *_KINDS[kind])] = Reply(
                text=text(record, "reply", place), finish_reason=text(record, "finish_reason", place, default="stop")
            )
        return recorded


def _index(record: dict[str, Any], place: str) -> int:
    index = record.get("index")
    if not isinstance(index, int) or isinstance(index, bool):
        raise UserError(f"{place}: 'index' should be a whole number (the row's position), but is {index!r}")
    return index
