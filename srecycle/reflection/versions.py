"""All versions of all rows as one table: what likelihoods, selection and assembly read.

One line for every (row, version) that the plan makes, in row order, original first; `status` says whether it is usable.
"""

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srecycle.data import Source
from srecycle.reflection.reflect import Reflect
from srecycle.rows import CANDIDATE_SCHEMA, OK, ROW_SCHEMA, kind_of, version_order
from srecycle.stage import Stage, Work

VERSION_SCHEMA = pa.schema(
    [
        *ROW_SCHEMA,
        pa.field("version", pa.string(), False),
        pa.field("status", pa.string(), False),
        pa.field("critique", pa.string(), False),
        CANDIDATE_SCHEMA.field("criteria"),
    ]
)

_SAME_QUESTION = ("original", "response")
"""A new instruction stands alone, and has no known answer; a new response still answers inside its conversation."""

_WRITTEN = ("status", "instruction", "input", "response", "critique", "criteria")
_OF_ROW = ("position", "source")
_OF_QUESTION = ("history", "reference")
_KEYS = {"id", "version", "status", "position"}


def version_table(
    work: Work, rows: Source | None, reflections: Sequence[Reflect], columns: Collection[str] | None = None
) -> pa.Table:
    """Return the versions that `rows` (the originals; left out where None) and `reflections` hold.

    `columns` restricts the table to these and to what its lines are known by: texts are most of its size.
    """
    wanted = [name for name in VERSION_SCHEMA.names if columns is None or name in columns or name in _KEYS]
    source = reflections[0].rows if rows is None else rows
    originals = _read(work, source, "rows", [name for name in wanted if name in ROW_SCHEMA.names])
    parts = [] if rows is None else [_originals(originals, wanted)]
    written = [name for name in wanted if name in ("id", "version", *_WRITTEN)]
    parts += [_rewritten(_read(work, one, "candidates", written), originals, wanted) for one in reflections]
    table = pa.concat_tables(parts)
    return table.take(_order(table)).combine_chunks()


def _read(work: Work, stage: Stage, table: str, columns: Sequence[str]) -> pa.Table:
    """Read these columns alone: of a million rows, texts take longer to read than everything else to do."""
    return pq.read_table(work.read(stage).folder / f"{table}.parquet", columns=list(columns))


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
