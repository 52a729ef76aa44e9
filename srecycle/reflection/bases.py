"""What the teacher may be shown: the versions of each row that a phase reflects on.

The instruction phase reflects on the original only, the response phase on the new instruction too; where the student
chose before (scope=chosen), on what it chose alone, which may be any sample of the new instruction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srecycle.reflection.prompts import Reflection
from srecycle.rows import OK, Row, Turn, Version, version_order

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
