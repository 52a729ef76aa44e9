"""No filter: every row that the student decided on is kept."""

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Keep, Reasons


@component
class KeepAll(Keep):
    """Refuses nothing."""

    def reasons(self, chosen: Chosen) -> Reasons:
        """Keep every row."""
        return np.full(len(chosen.version), "", dtype=object)
