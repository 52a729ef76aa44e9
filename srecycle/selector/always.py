"""No selection: every usable rewrite is taken (the paper's "reflect on ..." arms)."""

import numpy as np

from srecycle.config import component
from srecycle.selector.base import Contest, Matrix, Selector


@component
class Always(Selector):
    """Prefers the last usable challenger to the incumbent."""

    def preference(self, contest: Contest) -> Matrix:
        """Prefer later versions."""
        rows, versions = contest.usable.shape
        return np.broadcast_to(np.arange(versions, dtype=np.float64), (rows, versions))
