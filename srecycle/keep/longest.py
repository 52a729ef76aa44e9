"""The longest responses: a baseline that many selections by quality don't beat (arXiv:2402.04833)."""

from typing import ClassVar

import numpy as np

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Reasons
from srecycle.keep.share import Share, first, lengths, past_the_cut


@component
class Longest(Share):
    """Keeps the rows with the longest responses, in characters. Of equal ones, those whose id comes first."""

    needs: ClassVar[tuple[str, ...]] = ("response",)

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse shorter ones."""
        taken = first(lengths(chosen.texts["response"]), chosen.id, self.count(chosen))
        return np.where(taken, "", "response_not_longest").astype(object)

    def slack(self, chosen: Chosen) -> Column | None:
        """Return how much longer than the shortest one kept each response is, in characters."""
        values = lengths(chosen.texts["response"])
        return past_the_cut(values, first(values, chosen.id, self.count(chosen)))
