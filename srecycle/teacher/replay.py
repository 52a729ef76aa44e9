"""Recorded reflections: what somebody's teacher wrote earlier, read from files or a hub data set.

In: a recording, in one of two layouts. Out: the recorded reply of a request's row and version, or a reason.

- One table, a record a reply: a column says which version the record is for, another holds the raw reply. Ours.
- A table for each version, all with a record a row (`columns` names no version): the authors' published sets, whose
  splits hold finished pairs. A pair is rendered with the markers that the parser reads it back from; a text that
  could be taken for a marker itself can't be, and has the status "holds_markers".

A recording has one reply for each, unless a column of the first layout numbers its samples (from 0). A response to a
new instruction answers the first sample of it.

A row is found by its position in its source, by its id, or by its content (the recording's own original pair: this
holds in any order and subset). Rows without a record have the status "not_recorded". Identity: the content of the
files, or the hub's commit, and how they are read.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from srecycle.config import InputPath, component
from srecycle.data.files import records, text
from srecycle.data.pinned import is_hub_id
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.rows import Kind, Version, challenger, content_id, kind_of, sample_of, version_of
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger
from srecycle.teacher.recording import hub_commit, hub_records, table_files

Role = Literal["row", "version", "sample", "reply", "finish_reason", "instruction", "input", "response"]
Record = dict[str, Any]

_COLUMNS: Final[Mapping[Role, str | None]] = {
    "row": "index",
    "version": "kind",
    "reply": "reply",
    "finish_reason": "finish_reason",
}
_VERSIONS: Final[Mapping[Kind, str | None]] = {
    "instruction": "instruction",
    "response": "response_original",
    "both": "response_reflected",
}
_NAME = r"(?:new|better)[ \t_-]*(?:instruction|answer)"
_MARKER: Final = re.compile(
    rf"\[[ \t]*(?:{_NAME}|(?:/[ \t]*)?end[ \t_.:\]\\-]|/[ \t]*(?:{_NAME}|instruction|answer))", re.IGNORECASE
)
"""Whatever the parser could read as one of its markers, and a little more."""

_FENCE: Final = re.compile(r"^[ \t]*+(`{3,}|~{3,})[ \t]*+([^`\n]*+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the recording has for a row and version: a raw reply, or (`pair`) the finished instruction and response."""

    reply: str = ""
    finish_reason: str = "stop"
    pair: tuple[str, str] | None = None
    bare_instruction: str = ""


@component
class ReplayTeacher(Teacher):
    """Answers from a recording at `path`: a file, a folder with a file a table, or a hub data set at `hub_revision`.

    `columns` says which column (a dot leads into a struct) has which role. `versions` says what a version is called in
    the version column (null: it has none), or, where no column says the version, what its table is called. `split` is
    the one table's split on the hub. A version whose pair is the one that was shown (the published sets put it where
    their teacher failed) is served, or rejected with the status "unchanged".
    """

    revision = 2

    path: InputPath
    hub_revision: str = "main"
    split: str = "train"
    columns: dict[Role, str | None] = Field(default_factory=lambda: dict(_COLUMNS))
    versions: dict[Kind, str | None] = Field(default_factory=lambda: dict(_VERSIONS))
    row: Literal["position", "id", "content"] = "position"
    unchanged: Literal["serve", "reject"] = "serve"

    def __post_init__(self) -> None:
        """Refuse roles and versions that don't go together."""
        if not self._column("reply") and not self._column("response"):
            raise ValueError("columns should name the column of the reply, or those of instruction and response")
        if self.row == "content" and (self._is_long or not self.versions.get("original")):
            raise ValueError("row=content needs a table for each version, and versions.original among them")
        if self.row == "id" and not self._column("row"):
            raise ValueError("row=id needs columns.row: the column that holds the rows' ids")
        if self._column("sample") and not self._is_long:
            raise ValueError("columns.sample needs columns.version: a table for each version has one sample")

    def resolved(self) -> Mapping[str, Any]:
        """Identity is the content: digests of the files, or the hub's commit."""
        if self._is_on_hub:
            return {"path": str(self.path), "hub_revision": hub_commit(str(self.path), self.hub_revision)}
        digests = [file_digest(file) for files in self._files.values() for file in files]
        return {"path": digests[0] if len(digests) == 1 else digests, "hub_revision": None}

    def check(self) -> None:
        """Raise UserError where a table's file is missing, or the hub data set can't be found."""
        super().check()
        self.resolved()
        if not self._is_long and self.path.is_file():
            raise UserError(
                f"teacher.path={self.path} is one file, but columns.version is not set: give the folder that has a "
                f"file for each of {', '.join(self._tables)}, or the column that tells a record's version"
            )

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Look every request up. Raises UserError on a recording that can't be read."""
        self.check()
        return [self._reply(request) for request in requests]

    def _reply(self, request: Request) -> Reply:
        version = challenger(request.phase, request.base, request.sample)
        # A response that was recorded for another new instruction than the one that is shown would be a mixed pair.
        recorded = None if sample_of(request.base) else self._recorded(version).get(self._place(request))
        if recorded is None:
            return _without("not_recorded")
        if recorded.pair is None:
            return Reply(text=recorded.reply, finish_reason=recorded.finish_reason)
        instruction, response = recorded.pair
        same = recorded.bare_instruction == request.instruction.strip() or request.phase == "response"
        if self.unchanged == "reject" and same and response == request.response.strip():
            return _without("unchanged")
        segments = {"New Instruction": instruction, "New Answer": response}
        rendered = _rendered(segments if request.phase == "instruction" else {"Better Answer": response})
        return Reply(text=rendered) if rendered is not None else _without("holds_markers")

    def _place(self, request: Request) -> int | str | None:
        if self.row != "content":
            return request.position if self.row == "position" else request.row_id
        # The running number of a row's duplicates, which differ in nothing: `id` is the first, `id-2` the second.
        content, _, number = request.row_id.partition("-")
        places = self._positions.get(content, [])
        return places[int(number or 1) - 1] if int(number or 1) <= len(places) else None

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """Where the original pairs stand in the recording, by their content."""
        table, places = str(self.versions["original"]), defaultdict(list)
        for number, record in enumerate(self._records(table)):
            place = f"{table}: record {number}"
            instruction, given, response = self._pair(record, place)
            places[content_id(instruction, given, response)].append(number)
        return places

    def _recorded(self, version: Version) -> Mapping[int | str | None, Recorded]:
        """Return what is recorded for a version, by the row's place. A table is read when it is first asked for."""
        if self._is_long:
            return self._long.get(version, {})
        if version not in self._read:
            table = None if sample_of(version) else self.versions.get(kind_of(version))
            self._read[version] = self._read_table(table) if table else {}
        return self._read[version]

    @cached_property
    def _read(self) -> dict[Version, dict[int | str | None, Recorded]]:
        return {}

    def _read_table(self, table: str) -> dict[int | str | None, Recorded]:
        found: dict[int | str | None, Recorded] = {}
        for number, record in enumerate(self._records(table)):
            place = f"{table}: record {number}"
            row = number if self.row == "content" else self._row(record, number, place)
            found[row] = self._entry(record, place)
        return found

    @cached_property
    def _long(self) -> dict[Version, dict[int | str | None, Recorded]]:
        column, named = str(self._column("version")), {name: kind for kind, name in self.versions.items() if name}
        found: dict[Version, dict[int | str | None, Recorded]] = {}
        for number, record in enumerate(self._records(self.split)):
            place = f"{self.path}: record {number}"
            kind = self._text(record, "version", place)
            if kind not in named:
                raise UserError(f"{place} has the {column} {kind!r}; known are {', '.join(named)}")
            sample = self._number(record, "sample", place) if self._column("sample") else 0
            row, version = self._row(record, number, place), version_of(named[kind], sample)
            if row in found.setdefault(version, {}):
                raise UserError(
                    f"{place} is the second one for row {row} and the {column} {kind!r}: keep one of them, or name the "
                    "column that numbers a reply's samples in columns.sample"
                )
            found[version][row] = self._entry(record, place)
        return found

    def _entry(self, record: Record, place: str) -> Recorded:
        if self._column("reply"):
            finish = self._text(record, "finish_reason", place) if self._column("finish_reason") else "stop"
            return Recorded(reply=self._text(record, "reply", place), finish_reason=finish)
        instruction, given, response = (part.strip() for part in self._pair(record, place))
        # A new instruction stands alone: whatever input it needs is part of it.
        whole = f"{instruction}\n{given}" if given else instruction
        return Recorded(pair=(whole, response), bare_instruction=instruction)

    def _pair(self, record: Record, place: str) -> tuple[str, str, str]:
        return (
            self._text(record, "instruction", place),
            self._text(record, "input", place),
            self._text(record, "response", place),
        )

    def _row(self, record: Record, number: int, place: str) -> int | str:
        column = self._column("row")
        if column is None:
            return number
        if self.row == "id":
            return self._text(record, "row", place)
        return self._number(record, "row", place)

    def _number(self, record: Record, role: Literal["row", "sample"], place: str) -> int:
        column = str(self._column(role))
        number = _inner(record, column)[0].get(column.rpartition(".")[2])
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            meant = {"row": "the row's position", "sample": "the sample, counted from 0"}[role]
            raise UserError(f"{place}: {column!r} should be a whole number ({meant}), but is {number!r}")
        return number

    def _text(self, record: Record, role: Role, place: str) -> str:
        column = self._column(role)
        if column is None:
            return ""
        parent, name = _inner(record, column)
        return text(parent, name, place, default={"input": "", "finish_reason": "stop"}.get(role))

    def _column(self, role: Role) -> str | None:
        return self.columns.get(role)

    @property
    def _is_long(self) -> bool:
        return self._column("version") is not None

    @property
    def _is_on_hub(self) -> bool:
        return not self.path.exists() and is_hub_id(str(self.path))

    @property
    def _tables(self) -> list[str]:
        return [name for name in self.versions.values() if name]

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """The files of each table."""
        if self.path.is_file():
            return {self.split: [self.path]}
        if self._is_long or not self.path.is_dir():
            kind = "file of recorded replies" if self._is_long else "folder with a file for each version"
            raise UserError(
                f"teacher.path={self.path} is not a {'file' if self._is_long else 'folder'}: give the {kind}, "
                "or the id of a hub data set, like org/name"
            )
        return {table: table_files(self.path, table) for table in self._tables}

    def _records(self, table: str) -> Iterator[Record]:
        if self._is_on_hub:
            yield from hub_records(str(self.path), hub_commit(str(self.path), self.hub_revision), table)
        else:
            for file in self._files[table]:
                yield from records(file)


def _inner(record: Record, column: str) -> tuple[Record, str]:
    """Return the record that holds a column, and its name there: `data.output` is `output` of the struct `data`."""
    first, dot, rest = column.partition(".")
    if column in record or not dot or not isinstance(record.get(first), dict):
        return record, column
    return _inner(record[first], rest)


def _rendered(segments: Mapping[str, str]) -> str | None:
    """Write texts with markers around them, or None where they can't be told from markers.

    An instruction whose code block is never closed would swallow the markers after it.
    """
    *before, _ = segments.values()
    if any(_MARKER.search(part) for part in segments.values()) or any(map(_opens_code, before)):
        return None
    return "\n".join(f"[{name}]\n{part}\n[End]" for name, part in segments.items())


def _opens_code(part: str) -> bool:
    """Say whether a text ends inside a fenced code block."""
    opened = ""
    for fence, info in _FENCE.findall(part):
        if not opened:
            opened = fence
        elif fence.startswith(opened) and not info.strip():
            opened = ""
    return bool(opened)


def _without(status: str) -> Reply:
    return Reply(text="", finish_reason="", status=status)
