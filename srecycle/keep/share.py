"""What filters have in common that keep a share of the rows: how many, in which order, and how near the others are."""

import hashlib
from abc import ABC
from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Keep, Reasons
from srecycle.keep.preference import unscored
from srecycle.scorer import SCORES

RowFlags = npt.NDArray[np.bool_]


def _known(name: str) -> str:
    if name not in SCORES:
        raise ValueError(f"is no score; choose one of {', '.join(SCORES)}")
    return name


ScoreName = Annotated[str, AfterValidator(_known)]


@component
class Share(Keep, ABC):
    """Keeps `fraction` or `rows` (a count) of the rows that the other filters let stand.

    A fraction is rounded to whole rows, halves up, and is one row at least where any stand.
    """

    revision: ClassVar[int] = 2
    compares: ClassVar[bool] = True

    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    rows: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse both and neither."""
        if (self.fraction is None) == (self.rows is None):
            raise ValueError(
                f"fraction={self.fraction} and rows={self.rows}: set one of them, and the other to null (a share of "
                "the rows that stand, or a count)"
            )

    def count(self, chosen: Chosen) -> int:
        """Return how many rows are to be kept. Rows that can't be kept still count for the fraction."""
        standing = len(chosen.version)
        if self.fraction is None:
            return min(self.rows or 0, standing)
        # As it is written: 0.29 of 50 is 14.5, and in binary a little less.
        whole = int((Decimal(str(self.fraction)) * standing).to_integral_value(ROUND_HALF_UP))
        return min(max(1, whole), standing)


@component
class ByScore(Share, ABC):
    """Keeps a share that has to do with the rows of the highest (or lowest) values of the score `by`."""

    by: ScoreName = "ifd"
    highest: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """The score, and what else the filter needs."""
        return (*self.needs, self.by)

    def top(self, chosen: Chosen) -> RowFlags:
        """Return which rows are the top ones, shape [rows]: as many as the share allows and scores are there."""
        return first(self.ranked(chosen), chosen.id, self.count(chosen))

    def ranked(self, chosen: Chosen) -> Column:
        """Return what rows are ranked by, shape [rows]: higher comes first, NaN never."""
        values = chosen.columns[self.by]
        return values if self.highest else -values

    def unscored(self, chosen: Chosen) -> Reasons:
        """Return why each row has no score, shape [rows]; "" where it has one."""
        return unscored(chosen, self.by)


def first(values: Column, ids: npt.NDArray[Any], count: int) -> RowFlags:
    """Return the rows with the `count` highest values; of equal ones, those whose id comes first. Never NaN."""
    order = np.lexsort((ids.astype(str), -values))
    taken = np.zeros(len(values), dtype=bool)
    taken[order[: min(count, np.count_nonzero(~np.isnan(values)))]] = True
    return taken


def past_the_cut(values: Column, taken: RowFlags) -> Column | None:
    """Return how far each value is above the lowest that was taken, shape [rows]; None where there is no cut.

    Where equal values were parted by their ids, those not taken are below by the next number.
    """
    left_out = ~taken & ~np.isnan(values)
    if not taken.any() or not left_out.any():
        return None
    slack: Column = values - values[taken].min()
    slack[left_out & (slack == 0)] = -np.finfo(np.float64).tiny
    return slack


def draws(ids: npt.NDArray[Any], name: str) -> Column:
    """Return a number in [0, 1) for each id, shape [rows], that depends on the id and on `name` alone."""
    found = [hashlib.sha256(f"{name}|{identifier}".encode()).digest()[:7] for identifier in ids]
    return np.array([int.from_bytes(one) / 2**56 for one in found], dtype=np.float64)


def lengths(responses: npt.NDArray[Any]) -> Column:
    """Return the responses' lengths in characters, shape [rows]: the same whatever student or tokenizer is used."""
    return np.array([len(one) for one in responses], dtype=np.float64)
