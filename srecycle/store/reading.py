"""Reading a part of a table: ranges of its lines, or the lines of neighbouring rows."""

import bisect
import itertools
import threading
from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


class LineReader:
    """Reads ranges of a parquet file's lines; whoever goes through it in order reads each group once.

    Threads may share one.
    """

    def __init__(self, path: Path, columns: Collection[str]) -> None:
        """Open the file, to read these columns."""
        self._file = pq.ParquetFile(path)
        self._columns = [name for name in self._file.schema_arrow.names if name in columns]
        self._empty = pa.schema([self._file.schema_arrow.field(name) for name in self._columns]).empty_table()
        counts = [self._file.metadata.row_group(number).num_rows for number in range(self._file.num_row_groups)]
        self._starts = [0, *itertools.accumulate(counts)]
        self._last: tuple[int, pa.Table] | None = None
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> pa.Table:
        """Return the lines from `start` up to `stop`."""
        first = bisect.bisect_right(self._starts, start) - 1
        touched = itertools.takewhile(lambda number: self._starts[number] < stop, range(first, len(self._starts) - 1))
        with self._lock:
            parts = [self._empty, *map(self._group, touched)]
        return pa.concat_tables(parts).slice(start - self._starts[first], stop - start)

    def _group(self, number: int) -> pa.Table:
        if self._last is None or self._last[0] != number:
            self._last = number, self._file.read_row_group(number, columns=self._columns)
        return self._last[1]


class ByRow:
    """A table read by rows: 0-based, of the rows whose ids are given.

    Our stages write lines in the order of their rows, and what stands in order is read as it is needed. Anything else
    is read whole, and put in order.
    """

    def __init__(self, file: Path, ids: pa.Array, columns: Collection[str]) -> None:
        """Find out which lines belong to which rows."""
        found = pc.index_in(pq.read_table(file, columns=["id"])["id"], value_set=ids).to_numpy(zero_copy_only=False)
        self.counts: npt.NDArray[np.int64] = np.bincount(found.astype(np.int64), minlength=len(ids))
        self._starts = np.concatenate([[0], np.cumsum(self.counts)])
        in_order = bool((np.diff(found) >= 0).all())
        self._file = LineReader(file, columns) if in_order else None
        self._sorted = (
            None if in_order else pq.read_table(file, columns=list(columns)).take(np.argsort(found, kind="stable"))
        )

    def read(self, start: int, stop: int) -> pa.Table:
        """Return the lines of the rows from `start` up to `stop`."""
        first, last = int(self._starts[start]), int(self._starts[stop])
        if self._file is not None:
            return self._file.read(first, last)
        assert self._sorted is not None
        return self._sorted.slice(first, last - first)
