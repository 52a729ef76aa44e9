"""Carrying replies from one ledger to another: JSON Lines, one reply a line with all that the ledger knows of it.

An import believes no key: it is computed anew from the provider, the request and the sample's number. Replies that are
there already stand. What was imported was paid elsewhere, and counts in no budget here.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from srecycle.errors import UserError
from srecycle.teacher.ledger import Ledger, ledger_key

Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_AT_ONCE: Final = 200


@pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Entry:
    """A line of the file."""

    key: str
    provider: str
    request: dict[str, JsonValue]
    reply: str
    finish_reason: str
    input_tokens: Count
    output_tokens: Count
    usd: Amount
    seconds: Amount
    attempts: Count
    time: Amount
    reasoning_tokens: Count = 0
    sample: Count = 0


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of a file's lines: new replies, known ones, lines refused, and whether the last one was cut."""

    new: int
    known: int
    refused: int
    torn: bool


def export_replies(ledger: Ledger, file: Path) -> int:
    """Write every reply, whole file or none, readable by its owner only; return how many.

    Raises UserError where the file exists, or can't be written.
    """
    if file.exists():
        raise UserError(f"{file} exists already: name another file, or remove it")
    names = ", ".join(Entry.__dataclass_fields__)
    temporary = file.with_name(f".{file.name}.part")
    try:
        temporary.touch(mode=0o600)
        count = 0
        with temporary.open("w", encoding="utf-8") as stream:
            for line in ledger.rows(f"SELECT {names} FROM replies ORDER BY rowid"):
                request = json.loads(line["request"])
                stream.write(json.dumps(line | {"request": request}, sort_keys=True, ensure_ascii=False) + "\n")
                count += 1
        temporary.replace(file)
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error
    return count


def import_replies(ledger: Ledger, file: Path) -> Imported:
    """Read replies in. Raises UserError where the file can't be read."""
    new = good = refused = 0
    torn = False
    read = TypeAdapter(Entry)

    def entries() -> Iterator[dict[str, Any]]:
        nonlocal good, refused, torn
        with file.open("rb") as stream:
            for line in stream:
                if not line.strip():
                    continue
                try:
                    entry = read.validate_json(line)
                except ValidationError:
                    torn = not line.endswith(b"\n")  # only a file's last line can be without an end
                    refused += not torn
                    continue
                if not _is_sound(entry):
                    refused += 1
                    continue
                good += 1
                yield _as_row(entry)

    waiting = entries()
    try:
        while some := list(islice(waiting, _AT_ONCE)):  # short transactions: others write too
            new += ledger.add(some)
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error
    if torn and not good:
        raise UserError(f"{file} holds no replies: give a file that srecycle-ledger export wrote")
    return Imported(new=new, known=good - new, refused=refused, torn=torn)


def _is_sound(entry: Entry) -> bool:
    """Tell whether the key is that of the request. One with numbers that JSON has not (Infinity) has no key."""
    try:
        return entry.key == ledger_key(entry.provider, entry.request, entry.sample)
    except ValueError:
        return False


def _as_row(entry: Entry) -> dict[str, Any]:
    request = json.dumps(entry.request, sort_keys=True)
    return asdict(entry) | {"request": request, "model": str(entry.request.get("model", "")), "imported": 1}
