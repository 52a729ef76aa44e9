"""Files that are there whole or not at all: written aside, then renamed into place."""

import itertools
import json
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

GROUP_LINES: Final = 16_384
"""How many lines of a table are written, and read again, at once."""


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the whole of it or nothing: a temporary file, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_table(path: Path, tables: pa.Table | Iterable[pa.Table]) -> None:
    """Write a table as parquet, whole or not at all; of many, one after the other, no more than a group is in memory.

    Lines stand in groups of `GROUP_LINES`, so that the same lines give the same bytes however they came.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    groups = _groups([tables] if isinstance(tables, pa.Table) else tables)
    first = next(groups)
    try:
        with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
            for group in itertools.chain([first], groups):
                writer.write_table(group, row_group_size=GROUP_LINES)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the lines of tables in groups; where there is no line, one empty group with their columns."""
    held: list[pa.Table] = []
    count = 0
    for table in tables:
        held.append(table)
        count += len(table)
        while count > GROUP_LINES:
            joined = pa.concat_tables(held)
            yield joined.slice(0, GROUP_LINES).combine_chunks()
            held, count = [joined.slice(GROUP_LINES)], count - GROUP_LINES
    assert held, "a table was to be written of no tables"
    yield pa.concat_tables(held).combine_chunks()
