"""Selection at the frontier: medium difficulty teaches best, neither what is known already nor what is hopeless."""

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from srecycle.config import component
from srecycle.scorer import SCORES
from srecycle.selector.base import Contest, Matrix, Selector


def _known(score: str) -> str:
    if score not in SCORES:
        raise ValueError(f"should be one of {', '.join(SCORES)}")
    return score


@component
class Band(Selector):
    """Prefers the version whose score `by` lies in [low, high], else the nearer to it; two inside are equal.

    `low` and `high` are values of the score, or (`bounds: quantile`) shares of the incumbents' scores, which then are
    those of all rows: the band is the middle of what the data has. A challenger must be nearer by more than `margin`
    (in the score's units). Where no incumbent has a score, quantiles give no band and no verdict.
    """

    by: Annotated[str, AfterValidator(_known)] = "ifd"
    bounds: Literal["value", "quantile"] = "quantile"
    low: float = 0.25
    high: float = 0.75
    margin: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Refuse a band that holds nothing."""
        if self.low > self.high:
            raise ValueError(f"low={self.low} is above high={self.high}: nothing lies between them")
        if self.bounds == "quantile" and not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"low={self.low} and high={self.high} should lie between 0 and 1 as quantiles")

    @property
    def needed(self) -> tuple[str, ...]:
        """The score."""
        return (self.by,)

    @property
    def decided_by(self) -> str:
        """The score."""
        return self.by

    @property
    def lead(self) -> float:
        """The margin."""
        return self.margin

    def preference(self, contest: Contest) -> Matrix:
        """Prefer the version that is nearer to the band."""
        values = np.where(contest.usable, contest.columns[self.by], np.nan)
        low, high = self._band(values[:, 0])
        return -np.maximum(np.maximum(low - values, values - high), 0.0)

    def _band(self, incumbents: Matrix) -> tuple[float, float]:
        if self.bounds == "value":
            return self.low, self.high
        scored = incumbents[~np.isnan(incumbents)]
        if not len(scored):
            return np.nan, np.nan
        low, high = np.quantile(scored, (self.low, self.high))
        return float(low), float(high)
