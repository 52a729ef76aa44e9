"""Statistics of every version, in the shape in which the authors published theirs.

In: four aligned tables, one a kind of version (`SPLITS`), as JSON, JSON Lines or parquet, in a folder, as single files
or on the hub. A record holds `ppl` and `loss`, alone or inside a struct `data`: each four numbers, of the instruction
alone, the response alone, the instruction after the reversed request, and the response after its instruction. Where
the authors' scoring failed, the numbers are 0; where a response was empty, a record has none. Out: arrays.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srecycle.data.files import records
from srecycle.data.pinned import is_hub_id
from srecycle.errors import UserError
from srecycle.rows import KINDS, Kind
from srecycle.teacher.recording import hub_commit, hub_records, table_files

SPLITS: Mapping[Kind, str] = {
    "original": "origin",
    "instruction": "reflect_instruction",
    "response": "reflect_response",
    "both": "reflect_both",
}
"""What the published tables call each kind of version."""

X, Y, X_GIVEN_Y, Y_GIVEN_X = range(4)
"""The order of the four numbers."""

Values = npt.NDArray[np.float64]
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Perplexities and losses (nats per token), shape [rows, kinds, 4]; kinds as in `KINDS`.

    `there` [rows, kinds] says which records had statistics; the numbers of the others are NaN.
    """

    ppl: Values
    loss: Values
    there: npt.NDArray[np.bool_]

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """Where the scoring failed, shape [rows, kinds]: no perplexity is below 1, so a 0 is none."""
        failed: npt.NDArray[np.bool_] = (self.ppl == 0).any(axis=2)
        return failed


def read_statistics(places: Sequence[str]) -> Statistics:
    """Read the tables: one folder, one hub id, or the files.

    Raises UserError where a table is missing, can't be read, or has another length than the others.
    """
    tables = {kind: [_numbers(*one) for one in _records(places, kind)] for kind in KINDS}
    sizes = {SPLITS[kind]: len(table) for kind, table in tables.items()}
    if len(set(sizes.values())) > 1 or not all(sizes.values()):
        told = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
        raise UserError(f"the four tables should have a record a row, in the same order, but they have: {told} records")
    numbers = np.array([[_NONE if one is None else one for one in tables[kind]] for kind in KINDS], dtype=np.float64)
    rows = numbers.transpose(1, 0, 2, 3)
    there = np.array([[one is not None for one in tables[kind]] for kind in KINDS], dtype=bool).T
    return Statistics(ppl=rows[:, :, 0], loss=rows[:, :, 1], there=there)


_NONE = ((np.nan,) * 4,) * 2


def _records(places: Sequence[str], kind: Kind) -> Iterator[tuple[Record, str]]:
    """Yield the records of a kind of version, each with its place in words."""
    split, whole = SPLITS[kind], Path(places[0]).expanduser()
    if len(places) == 1 and not whole.exists() and is_hub_id(places[0]):
        try:
            found = list(hub_records(places[0], hub_commit(places[0], "main"), split))
        except UserError as error:  # worded for a teacher's recording
            raise UserError(str(error).replace("teacher.path=", "", 1)) from error
        yield from ((record, f"{split}: record {number}") for number, record in enumerate(found))
        return
    number = 0
    for file in _files(places, whole, split):
        for record in records(file):
            yield record, f"{split}: record {number}"
            number += 1


def _files(places: Sequence[str], whole: Path, split: str) -> list[Path]:
    """Return the files of a split."""
    if len(places) == 1:
        if not whole.is_dir():
            raise UserError(
                f"{whole} is no folder: give a folder with a file for each of {', '.join(SPLITS.values())}, these four "
                "files, or the id of a hub data set, like org/name"
            )
        try:
            return table_files(whole, split)
        except UserError as error:
            raise UserError(
                f"{whole} has no table {split}: expected {split}.json, .jsonl, .parquet or {split}-*, there or in its "
                f"folder data; all of {', '.join(SPLITS.values())} are needed"
            ) from error
    files = [Path(place).expanduser() for place in places]
    strange = [file for file in files if not file.stem.startswith(tuple(SPLITS.values()))]
    if strange:
        raise UserError(f"{strange[0]} can't be told: its name should begin with one of {', '.join(SPLITS.values())}")
    found = sorted(file for file in files if file.stem.startswith(split))
    if absent := [file for file in found if not file.is_file()]:
        raise UserError(f"{absent[0]} is no file")
    if not found:
        raise UserError(
            f"no file of the split {split} is given: one is needed for each of {', '.join(SPLITS.values())}"
        )
    return found


def _numbers(record: Record, place: str) -> tuple[list[float], list[float]] | None:
    """Return a record's perplexities and losses; None where it has none."""
    data = record.get("data", record)
    if not data:
        return None
    if not isinstance(data, dict) or not {"ppl", "loss"} <= data.keys():
        held = ", ".join(map(repr, data)) if isinstance(data, dict) else type(data).__name__
        raise UserError(f"{place} should hold 'ppl' and 'loss', alone or in 'data', but holds {held}")
    if not data["ppl"] and not data["loss"]:
        return None
    return _four(data["ppl"], f"{place}: 'ppl'"), _four(data["loss"], f"{place}: 'loss'")


def _four(values: Any, place: str) -> list[float]:
    numbers = isinstance(values, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )
    if not numbers or len(values) != 4:
        raise UserError(f"{place} should be four numbers, but is {str(values)[:80]}")
    return [float(one) for one in values]
