"""A random share of the rows: the baseline that every other share must beat."""

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Reasons
from srecycle.keep.share import Share, draws, first


@component
class RandomShare(Share):
    """Keeps rows by a draw out of a hash of their id and `seed`: a larger share holds the smaller one."""

    seed: int = 0

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse the rows that were not drawn."""
        drawn = first(draws(chosen.id, f"keep.random|{self.seed}"), chosen.id, self.count(chosen))
        return np.where(drawn, "", "not_drawn").astype(object)
