"""All versions of all rows, line by line: what likelihoods, selection and assembly read.

One line for every (row, version) that the plan makes, in row order, original first; `status` says whether it is usable.
Every table that a stage writes is in row order, so that lines of neighbouring rows are joined without reading others.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srecycle.data import Source
from srecycle.reflection.reflect import Reflect
from srecycle.rows import CANDIDATE_SCHEMA, OK, ROW_SCHEMA, kind_of, version_order
from srecycle.stage import Work
from srecycle.store import ByRow, LineReader

VERSION_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        pa.field("version", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("critique", pa.string(), False),
        CANDIDATE_SCHEMA.field("criteria"),
    ]
)

ROWS_AT_ONCE: Final = 4096

_SAME_QUESTION = ("original", "response")
"""A new instruction stands alone, and has no known answer; a new response still answers inside its conversation."""

_WRITTEN = ("status", "instruction", "input", "response", "critique", "criteria")
_OF_ROW = ("position", "source")
_OF_QUESTION = ("history", "reference")
_KEYS = {"id", "version", "status", "position"}


class Versions:
    """The versions that `rows` (the originals; left out where None) and `reflections` hold.

    `columns` restricts them to these and to what their lines are known by: texts are most of their size. Nothing but
    ids is in memory, until lines are read. `ids` are those of all rows, and `counts` how many lines each has.
    """

    def __init__(
        self,
        work: Work,
        rows: Source | None,
        reflections: Sequence[Reflect],
        columns: Collection[str] | None = None,
    ) -> None:
        """Open the tables of the stages, which must have been made."""
        self._wanted = [name for name in VERSION_SCHEMA.names if columns is None or name in columns or name in _KEYS]
        file = work.read(reflections[0].rows if rows is None else rows).file("rows")
        self.ids = pq.read_table(file, columns=["id"])["id"].combine_chunks()
        self._originals = LineReader(file, [name for name in self._wanted if name in ROW_SCHEMA.names])
        self._with_originals = rows is not None
        written = [name for name in self._wanted if name in ("id", "version", *_WRITTEN)]
        self._rewritten = [ByRow(work.read(one).file("candidates"), self.ids, written) for one in reflections]

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many versions each row has."""
        counts = np.full(len(self.ids), int(self._with_originals), dtype=np.int64)
        return sum((one.counts for one in self._rewritten), counts)

    def read(self, start: int, stop: int) -> pa.Table:
        """Return the versions of the rows from `start` up to `stop`."""
        originals = self._originals.read(start, stop)
        parts = [_originals(originals, self._wanted)] if self._with_originals else []
        parts += [_rewritten(one.read(start, stop), originals, self._wanted) for one in self._rewritten]
        table = pa.concat_tables(parts)
        return table.take(_order(table)).combine_chunks()

    def parts(self) -> Iterator[tuple[slice, pa.Table]]:
        """Yield the versions of so many rows after the other, with the rows' places."""
        for start in range(0, len(self.ids), ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, len(self.ids))
            yield slice(start, stop), self.read(start, stop)

    def table(self) -> pa.Table:
        """Return all versions at once."""
        return self.read(0, len(self.ids))


class VersionsByRow:
    """What an engine maps over: the lines of each row that has any, read as they are sliced."""

    def __init__(self, versions: Versions) -> None:
        """Find out which rows have lines."""
        self._versions = versions
        self._rows = np.flatnonzero(versions.counts)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, places: slice) -> list[list[dict[str, Any]]]:
        rows = self._rows[places]
        if not len(rows):
            return []
        lines = self._versions.read(int(rows[0]), int(rows[-1]) + 1).to_pylist()
        return [list(group) for _, group in groupby(lines, key=itemgetter("id"))]


def _originals(originals: pa.Table, wanted: Sequence[str]) -> pa.Table:
    count = len(originals)
    made = {"version": ["original"] * count, "status": [OK] * count, "critique": [""] * count, "criteria": [[]] * count}
    return _table({name: originals[name] if name in originals.column_names else made[name] for name in wanted})


def _rewritten(candidates: pa.Table, originals: pa.Table, wanted: Sequence[str]) -> pa.Table:
    """Join candidates with the rows that they were written for."""
    places = pc.index_in(candidates["id"], value_set=originals["id"].combine_chunks())
    same = [name for name in candidates["version"].unique().to_pylist() if kind_of(name) in _SAME_QUESTION]
    kept = pc.is_in(candidates["version"], value_set=pa.array(same, type=pa.string())).to_numpy(zero_copy_only=False)
    without = {"history": [[]], "reference": [""], "label": [""]}
    columns = {}
    for name in wanted:
        if name in ("id", "version", *_WRITTEN):
            columns[name] = candidates[name]
        elif name in _OF_ROW:
            columns[name] = originals[name].take(places)
        else:  # what belongs to the question goes with it; nobody has judged a rewrite
            chosen = np.where(kept & (name in _OF_QUESTION), places.to_numpy(zero_copy_only=False), len(originals))
            empty = pa.array(without[name], type=VERSION_SCHEMA.field(name).type)
            columns[name] = pa.chunked_array([*originals[name].chunks, empty]).take(pa.array(chosen))
    return _table(columns)


def _table(columns: dict[str, object]) -> pa.Table:
    return pa.table(columns, schema=pa.schema([VERSION_SCHEMA.field(name) for name in columns]))


def _order(table: pa.Table) -> npt.NDArray[np.int64]:
    """Return the lines' order: by row, then as the method makes its versions."""
    names = table["version"].unique().to_pylist()
    rank = {name: place for place, name in enumerate(sorted(names, key=version_order))}
    index = pc.index_in(table["version"], value_set=pa.array(names)).to_numpy(zero_copy_only=False)
    ranks = np.array([rank[name] for name in names], dtype=np.int64)[index]
    order: npt.NDArray[np.int64] = np.lexsort((ranks, table["position"].to_numpy(zero_copy_only=False)))
    return order
