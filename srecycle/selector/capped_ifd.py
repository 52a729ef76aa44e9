"""Selection by difficulty with a ceiling: the version with the higher IFD wins, if its instruction helps at all."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import component
from srecycle.selector.base import Contest, Matrix
from srecycle.selector.ifd import IFD

_LEAST = np.finfo(np.float64).tiny


@component
class CappedIFD(IFD):
    """Takes a challenger only where its IFD is strictly below the cap; an incumbent has none.

    Where IFD is 1 or more, the instruction makes the response no likelier (the paper, section 3.2, leaves such pairs
    out at the end; here the incumbent keeps its place instead). `flip` is the nearer of two thresholds': for a row that
    was taken, `margin` where it is positive and the cap where it is negative; for one that wasn't, the other way round.
    """

    below: Annotated[float, Field(gt=0)] = 1.0

    def preference(self, contest: Contest) -> Matrix:
        """Prefer the higher IFD, and no challenger at or above the cap."""
        values = super().preference(contest).copy()
        challengers = values[:, 1:]
        challengers[challengers >= self.below] = -np.inf
        return values

    def flip(self, contest: Contest, ahead: Matrix) -> Matrix:
        """Return the change of `margin` or `below`, whichever is smaller, that flips each row."""
        values = np.where(contest.usable, super().preference(contest), np.nan)
        taken, margin = self._enough(ahead), super().flip(contest, ahead)
        margin = np.where(margin == 0, np.where(taken, _LEAST, -_LEAST), margin)
        enough = self._enough(values[:, 1:] - values[:, :1])
        # The row is taken as long as the cap is above the lowest of those that are far enough ahead.
        lowest = np.where(enough, values[:, 1:], np.inf).min(axis=1)
        cap = np.where(np.isfinite(lowest), lowest - self.below, np.nan)
        cap = np.where(cap == 0, _LEAST, cap)
        return np.where(np.abs(cap) < np.where(np.isnan(margin), np.inf, np.abs(margin)), cap, margin)

    def _enough(self, ahead: Matrix) -> npt.NDArray[np.bool_]:
        return ahead >= self.lead if self.tie == "challenger" else ahead > self.lead
