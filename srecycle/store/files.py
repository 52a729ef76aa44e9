"""Files that are there whole or not at all: written aside, then renamed into place."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the whole of it or nothing: a temporary file, synced, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True, allow_nan=False)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as parquet, whole or not at all. The same table always gives the same bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)
