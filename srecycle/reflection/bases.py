"""What the teacher may be shown: the versions of each row that a phase reflects on.

The instruction phase reflects on the original only, the response phase on the new instruction too; where the student
chose before (scope=chosen), on what it chose alone, which may be any sample of the new instruction.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from srecycle.reflection.prompts import Reflection
from srecycle.rows import CANDIDATE_SCHEMA, OK, ROW_SCHEMA, Row, Turn, Version, to_rows, version_order
from srecycle.store import ByRow, LineReader

BASES_AT_ONCE: Final = 4096

Choices = set[tuple[str, Version]]
"""(row id, version) of what the student chose."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """A version of a row that the teacher may be shown; `status` says why not, where it may not.

    `context` is what it is shown besides the pair.
    """

    row: Row
    version: Version
    instruction: str
    input: str
    response: str
    history: tuple[Turn, ...] = ()
    context: str = ""
    status: str = OK


def bases(
    reflection: Reflection, rows: Sequence[Row], candidates: Sequence[Mapping[str, Any]], chosen: Choices | None = None
) -> list[Base]:
    """Return the bases of these rows and of the instruction phase's `candidates`, a row's together, in row order."""
    found = [_original(reflection, row) for row in rows]
    by_id = {row.id: row for row in rows}
    found += [_rewritten(reflection, by_id[line["id"]], line) for line in candidates]
    if chosen is not None:
        found = [base for base in found if (base.row.id, base.version) in chosen]
    return sorted(found, key=lambda base: (base.row.position, version_order(base.version)))


def _original(reflection: Reflection, row: Row) -> Base:
    return Base(
        row=row,
        version="original",
        instruction=row.instruction,
        input=row.input,
        response=row.response,
        history=row.history,
        context=reflection.known(
            instruction=row.instruction, input=row.input, response=row.response, reference=row.reference
        ),
        status=OK if row.instruction.strip() else "empty_instruction",
    )


def _rewritten(reflection: Reflection, row: Row, candidate: Mapping[str, Any]) -> Base:
    pair = {name: candidate[name] for name in ("instruction", "input", "response")}
    usable = candidate["status"] == OK
    return Base(
        row=row,
        version=candidate["version"],
        **pair,
        # The row's reference answers another question than the new one.
        context=reflection.known(**pair, reference="") if usable else "",
        status=OK if usable else "base_unusable",
    )


class Bases:
    """The bases of all rows of `rows`, with the instruction phase's `candidates` (both tables' files), in row order.

    They are made as they are sliced: nothing but ids and choices is in memory.
    """

    def __init__(
        self, reflection: Reflection, rows: Path, candidates: Path | None = None, chosen: Choices | None = None
    ) -> None:
        """Open the tables, and count each row's bases."""
        ids = pq.read_table(rows, columns=["id"])["id"].combine_chunks()
        self._reflection, self._chosen = reflection, chosen
        self._rows = LineReader(rows, ROW_SCHEMA.names)
        self._candidates = ByRow(candidates, ids, CANDIDATE_SCHEMA.names) if candidates else None
        counts = np.ones(len(ids), dtype=np.int64)
        if chosen is None and self._candidates is not None:
            counts += self._candidates.counts
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, places: slice) -> list[Base]:
        start, stop, _ = places.indices(len(self))
        if start >= stop:
            return []
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, stop, side="left"))
        rows = to_rows(self._rows.read(first, last))
        candidates = self._candidates.read(first, last).to_pylist() if self._candidates else []
        found = bases(self._reflection, rows, candidates, self._chosen)
        assert len(found) == self._starts[last] - self._starts[first], "a row was chosen no version of, or several"
        skipped = start - int(self._starts[first])
        return found[skipped : skipped + stop - start]

    def __iter__(self) -> Iterator[Base]:
        for start in range(0, len(self), BASES_AT_ONCE):
            yield from self[start : start + BASES_AT_ONCE]
