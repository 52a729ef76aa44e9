"""Reading records from JSON, JSON Lines and parquet files, with errors that name file, record and column."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.errors import UserError

_HALF_OF_A_CHARACTER = re.compile("[\ud800-\udfff]")
"""JSON can hold a lone half of a surrogate pair (an emoji cut in two); UTF-8, and so parquet, can't."""


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON array, JSON Lines (`.jsonl`, `.ndjson`) or parquet file.

    Raises UserError where the file is missing, empty, not UTF-8, or not of its format.
    """
    if not path.is_file():
        raise UserError(f"data.path={path} is not a file: give the path of a .json, .jsonl or .parquet file")
    if path.suffix == ".parquet":
        try:
            for batch in pq.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        except pa.ArrowException as error:
            raise UserError(f"{path} is not a readable parquet file: {error}") from error
        return
    try:
        yield from _json_lines(path) if path.suffix in (".jsonl", ".ndjson") else _json_array(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): convert it, with iconv for example") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from error


def text(record: dict[str, Any], column: str, place: str, default: str | None = None) -> str:
    """Return a record's text column. Raises UserError where it is missing (and has no default) or not text."""
    value = record.get(column, default)
    if value is None and default is not None:
        return default
    if column not in record and default is None:
        raise UserError(f"{place} has no column {column!r}; it has {', '.join(map(repr, record)) or 'none'}")
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


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:  # a text stream's decoding errors don't say where in the file they are
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path}: line {number} is not UTF-8 text: convert it, with iconv for example"
                ) from error
            except json.JSONDecodeError as error:
                raise UserError(f"{path}: line {number} is not JSON: {error.msg}") from error
            yield _object(record, f"{path}: line {number}")


def _json_array(path: Path) -> Iterator[dict[str, Any]]:
    content = path.read_text(encoding="utf-8-sig")
    if not content.strip():
        raise UserError(f"{path} is empty: expected a JSON array of samples")
    value = json.loads(content)
    if not isinstance(value, list):
        raise UserError(f"{path} holds a JSON {type(value).__name__}: expected an array of samples (or name it .jsonl)")
    for number, record in enumerate(value):
        yield _object(record, f"{path}: record {number}")


def _object(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(f"{place} is a JSON {type(record).__name__}: expected an object with named columns")
    return record
