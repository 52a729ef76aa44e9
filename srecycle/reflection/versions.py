"""All versions of all rows as one table: what likelihoods, selection and assembly read.

One line for every (row, version) that the plan makes, in row order, original first; `status` says whether it is usable.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from srecycle.data import Source
from srecycle.reflection.reflect import Reflect
from srecycle.rows import OK, ROW_SCHEMA, kind_of, version_order
from srecycle.stage import Work

VERSION_SCHEMA = pa.schema(
    [*ROW_SCHEMA, pa.field("version", pa.string(), False), pa.field("status", pa.string(), False)]
)

_SAME_QUESTION = ("original", "response")
"""A new instruction stands alone, and has no known answer; a new response still answers inside its conversation."""


def version_table(work: Work, rows: Source | None, reflections: Sequence[Reflect]) -> pa.Table:
    """Return the versions that `rows` (the originals; left out where None) and `reflections` hold."""
    source = reflections[0].rows if rows is None else rows
    originals = work.read(source).table("rows").to_pylist()
    by_id = {line["id"]: line for line in originals}
    lines: list[dict[str, Any]] = []
    if rows is not None:
        lines += [{**line, "version": "original", "status": OK} for line in originals]
    for reflection in reflections:
        columns = ["id", "version", "status", "instruction", "input", "response"]
        for line in work.read(reflection).table("candidates").select(columns).to_pylist():
            original = by_id[line["id"]]
            same_question = kind_of(line["version"]) in _SAME_QUESTION
            lines.append(
                {
                    **line,
                    "position": original["position"],
                    "history": original["history"] if same_question else [],
                    "label": "",
                    "reference": original["reference"] if same_question else "",
                }
            )
    lines.sort(key=lambda line: (line["position"], version_order(line["version"])))
    return pa.Table.from_pylist(lines, schema=VERSION_SCHEMA)
