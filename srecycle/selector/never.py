"""No reflection: the incumbent always stands (the original arm, and the halves of table 4)."""

from typing import ClassVar

import numpy as np

from srecycle.config import component
from srecycle.selector.base import Contest, Matrix, Selector


@component
class Never(Selector):
    """Prefers the incumbent to every challenger."""

    takes_challengers: ClassVar[bool] = False

    def preference(self, contest: Contest) -> Matrix:
        """Prefer earlier versions."""
        rows, versions = contest.usable.shape
        return np.broadcast_to(-np.arange(versions, dtype=np.float64), (rows, versions))
