"""The tables of a run's artifacts, as they are read for a report.

In: a run, the label of one of its stages, and a table's name. Out: the table, or None where the run didn't come so far,
or the artifact is damaged or no longer in the store: never an error. Runs of a sweep share artifacts, so the tables
read last are kept; an artifact never changes, and one that is made anew has another time.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srecycle.report.runs import Run
from srecycle.scorer import LIKELIHOODS, scores

Values = npt.NDArray[np.float64]

SCORING = ("likelihoods", "likelihoods_response")
"""The stages that hold likelihoods: one, or one a phase."""


def table(run: Run, label: str, name: str, columns: Sequence[str] = ()) -> pa.Table | None:
    """Return a table of one of a run's stages, whole or those of the columns that it has."""
    folder = run.artifact(label)
    if folder is None:
        return None
    file = folder / f"{name}.parquet"
    try:
        return _read(file, file.stat().st_mtime_ns, tuple(columns))
    except (OSError, pa.ArrowException):
        return None


def lines_of(run: Run, label: str, name: str, ids: pa.Array, columns: Sequence[str]) -> pa.Table | None:
    """Return some rows of a table, those of these ids, without holding the others: token columns are large."""
    folder = run.artifact(label)
    if folder is None:
        return None
    file = folder / f"{name}.parquet"
    try:
        there = set(pq.read_schema(file).names)
        known = [column for column in columns if column in there]
        return pq.read_table(file, columns=known, filters=pc.field("id").isin(ids), use_threads=False)
    except (OSError, pa.ArrowException):
        return None


def forget() -> None:
    """Let go of the tables that were read."""
    _read.cache_clear()


@lru_cache(maxsize=12)
def _read(file: Path, changed: int, columns: tuple[str, ...]) -> pa.Table:
    with pq.ParquetFile(file) as stored:
        known = [name for name in columns if name in set(stored.schema_arrow.names)] if columns else None
        return stored.read(columns=known, use_threads=False)


def of(found: pa.Table, ids: pa.Array) -> pa.Table:
    """Return the lines of these ids."""
    return found.filter(pc.is_in(found["id"], value_set=ids))


def scored(likelihoods: pa.Table) -> dict[str, Values]:
    """Return the scores of likelihoods; NaN where one is missing."""
    absent = np.full(len(likelihoods), np.nan)  # in a store of an older version
    names = likelihoods.column_names
    return scores({name: floats(likelihoods[name]) if name in names else absent for name in LIKELIHOODS})


def floats(column: pa.ChunkedArray) -> Values:
    """Return a column of numbers; NaN where one is missing."""
    values: Values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def finite(values: Values) -> Values:
    """Return those that are numbers."""
    known: Values = values[np.isfinite(values)]
    return known
