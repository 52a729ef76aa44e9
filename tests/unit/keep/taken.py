"""What a student took, by hand: for the tests of keep filters."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from srecycle.keep import Chosen


def texts(values: Sequence[Any]) -> Any:
    """Return a column of any objects."""
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return column


def taken(
    rows: int,
    scores: dict[str, Sequence[float]] | None = None,
    ids: Sequence[str] | None = None,
    **given: Sequence[Any],
) -> Chosen:
    """Return so many rows. `given` are their versions, score statuses, and columns of texts."""
    missing = [any(math.isnan(values[row]) for values in (scores or {}).values()) for row in range(rows)]
    statuses = given.pop("status", ["unscored" if one else "ok" for one in missing])
    return Chosen(
        id=texts(ids if ids is not None else [f"row{number:03}" for number in range(rows)]),
        version=texts(given.pop("version", ["both"] * rows)),
        score_status=texts(statuses),
        columns={name: np.array(values, dtype=np.float64) for name, values in (scores or {}).items()},
        texts={name: texts(values) for name, values in given.items()},
    )


def permuted(chosen: Chosen, order: Sequence[int]) -> Chosen:
    """Return the rows in another order."""
    return chosen.only(np.array(order, dtype=np.int64))  # type: ignore[arg-type]
