"""Reading records from JSON, JSON Lines and parquet files, with errors that name setting, file, place and column.

JSON may be packed by gzip or zstd (`.jsonl.gz`, `.json.zst`). JSON Lines and parquet are read in streams, a JSON array
as a whole.
"""

import codecs
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.digest import file_digest
from srecycle.errors import UserError

_HALF_OF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""JSON can hold a lone half of a surrogate pair (an emoji cut in two); UTF-8, and so parquet, can't."""

SUFFIXES = frozenset({".parquet", ".jsonl", ".ndjson", ".json"})
_PACKED = {".gz": "gzip", ".zst": "zstd"}
_BEGINNINGS = {
    b"\x1f\x8b": "is packed by gzip: unpack it, or name it .jsonl.gz or .json.gz",
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it, or name it .jsonl.zst or .json.zst",
    b"PK\x03\x04": "is a zip archive: unpack it",
    b"PAR1": "is a parquet file: name it .parquet",
}
_PARQUET_ROWS = 1024
"""Rows that are Python objects at a time: of long texts, `iter_batches`' 65,536 take hundreds of MB, and more time."""
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}\n]', re.DOTALL)


def digest_of(path: Path, setting: str) -> str:
    """Return the digest of a file's content. Raises UserError, which names the setting, where it can't be read."""
    _require_file(path, f"{setting}={path}")
    return file_digest(path)


def is_readable(name: str, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Say whether a file's name is that of records in one of these formats, packed or not."""
    return _format(Path(name)) in suffixes


def records(path: Path, setting: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON array, JSON Lines or parquet file; `setting` named the file.

    A file that is named `.json` may hold lines as well, as many on the hub do. Raises UserError where the file is
    missing, empty, not UTF-8, cut, or not of its format.
    """
    named = f"{setting}={path}" if setting else str(path)
    _require_file(path, named, " of a .json, .jsonl or .parquet file")
    try:
        if _format(path) == ".parquet":
            yield from _parquet(path)
        elif _format(path) in (".jsonl", ".ndjson") or _begins_as_lines(path):
            yield from _json_lines(path)
        else:
            yield from _json_array(path)
    except OSError as error:  # what is packed and cut or damaged among them
        raise UserError(f"{named} can't be read: {error.strerror or error}") from error


def _format(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix in _PACKED else path.suffix


def _opened(path: Path) -> BinaryIO:
    packed = _PACKED.get(path.suffix)
    return io.BufferedReader(pa.input_stream(str(path), compression=packed)) if packed else path.open("rb")


def _begins_as_lines(path: Path) -> bool:
    """Say whether a file begins with an object that ends on its line, and another one follows."""
    with _opened(path) as stream:
        if not stream.read(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{"):
            return False
    with _opened(path) as stream:
        return stream.readline().rstrip().endswith(b"}") and stream.readline().startswith(b"{")


def _require_file(path: Path, named: str, kind: str = "") -> None:
    try:
        if not path.is_file():
            raise UserError(f"{named} is not a file: give the path{kind or ' of one'}")
    except OSError as error:
        raise UserError(f"{named} can't be read: {error.strerror or error}") from error


def text(record: dict[str, Any], column: str, place: str, default: str | None = None) -> str:
    """Return a record's text column. Raises UserError where it is missing (and has no default) or not text."""
    value = record.get(column, default)
    if value is None and default is not None:
        return default
    if column not in record and default is None:
        raise UserError(f"{place} has no column {column!r}; it has {columns_of(record)}")
    return text_of(value, column, place)


def columns_of(record: Mapping[str, Any]) -> str:
    """Return in words which columns a record has."""
    return ", ".join(map(repr, record)) or "none"


def text_of(value: Any, column: str, place: str) -> str:
    """Return a value of a column, which is text. Raises UserError where it isn't, or can't be written."""
    if not isinstance(value, str):
        raise UserError(f"{place}: {column!r} should be text, but is {type(value).__name__}")
    if half := _HALF_OF_A_CHARACTER.search(value):
        raise UserError(f"{place}: {column!r} holds half of a character ({half[0]!a}): mend or remove this record")
    return value


def optional(record: dict[str, Any], column: str | None, place: str) -> str:
    """Return a record's text in a column that it may lack: then "", as where no column is named."""
    return text(record, column, place, default="") if column is not None else ""


def require_column(columns: set[str], column: str | None, setting: str, path: Path) -> None:
    """Raise UserError where a named column stands in no record at all: the name is wrong."""
    if columns and column is not None and column not in columns:
        raise UserError(f"{path} has no column {column!r} (data.{setting}); it has {', '.join(sorted(columns))}")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := [name for name in names if names.count(name) > 1]:
                raise UserError(f"{path} has the column {twice[0]!r} twice: keep one of that name")
            for batch in file.iter_batches(_PARQUET_ROWS):
                yield from batch.to_pylist()
    except UserError:
        raise
    # What is cut or damaged comes as an OSError, and cells that can't be read as Python's as ValueErrors.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} is not a readable parquet file: {' '.join(str(error).split())}") from error


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as stream:  # a text stream's decoding errors don't say where in the file they are
        for number, line in enumerate(stream, start=1):
            if number == 1:
                _require_text(path, line)
            if not line.removeprefix(codecs.BOM_UTF8).strip():
                continue
            place = f"{path}: line {number}"
            try:
                record = json.loads(line.decode("utf-8-sig"), object_pairs_hook=_object)
            except UnicodeDecodeError as error:
                raise UserError(f"{place} is not UTF-8 text: convert it, with iconv for example") from error
            except json.JSONDecodeError as error:
                raise UserError(f"{place} is not JSON: {error.msg}") from error
            except RecursionError as error:
                raise UserError(f"{place} is JSON that is nested too deep: expected an object with columns") from error
            except ValueError as error:
                raise UserError(f"{place}: {error}") from error
            yield _record(record, place)


def _json_array(path: Path) -> Iterator[dict[str, Any]]:
    with _opened(path) as stream:
        content = stream.read()
    _require_text(path, content)
    try:
        written = content.decode("utf-8-sig")
        if not written.strip():
            raise UserError(f"{path} is empty: expected a JSON array of samples")
        value = json.loads(written, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): convert it, with iconv for example") from error
    except json.JSONDecodeError as error:
        hint = " (JSON Lines? Then name it .jsonl)" if error.msg == "Extra data" else ""
        raise UserError(f"{path}: line {error.lineno}, column {error.colno} is not JSON: {error.msg}{hint}") from error
    except RecursionError as error:
        line = _deepest_line(written)
        raise UserError(f"{path}: line {line} is JSON that is nested too deep: expected an array of objects") from error
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    if not isinstance(value, list):
        raise UserError(f"{path} holds a JSON {type(value).__name__}: expected an array of samples (or name it .jsonl)")
    for number, record in enumerate(value):
        yield _record(record, f"{path}: record {number}")


def _require_text(path: Path, content: bytes) -> None:
    """Raise UserError where a file begins as those of other formats do."""
    for beginning, told in _BEGINNINGS.items():
        if content.startswith(beginning):
            raise UserError(f"{path} {told}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object, in which JSON would let the last of several values of a name stand. Raises ValueError."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has {twice!r} twice ({', '.join(map(repr, made))}): keep one of that name")
    return made


def _deepest_line(content: str) -> int:
    """Return the line (from 1) on which JSON is nested deepest."""
    line = found = 1
    depth = deepest = 0
    for match in _STRUCTURE.finditer(content):
        depth += (match[0] in "[{") - (match[0] in "]}")
        line += match[0].count("\n")
        if depth > deepest:
            deepest, found = depth, line
    return found


def _record(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{place} is a JSON {type(record).__name__}: expected an object with named columns")
    return record
