"""The top share of the rows by a score: selection by difficulty at 1, 5 or 10%, say."""

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Reasons
from srecycle.keep.share import ByScore, past_the_cut


@component
class Top(ByScore):
    """Keeps the rows with the highest (or lowest) values of a score. Of equal ones, those whose id comes first."""

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse all others, and rows without the score."""
        told = self.unscored(chosen)
        return np.where((told == "") & ~self.top(chosen), f"{self.by}_not_in_top", told).astype(object)

    def slack(self, chosen: Chosen) -> Column | None:
        """Return how far each row's score is past that of the last row kept, in the score's units."""
        return past_the_cut(self.ranked(chosen), self.top(chosen))
