"""Selection by chance: the baseline that every selector must beat (an arm of the paper's table 4)."""

import hashlib
from typing import Annotated

import numpy as np
from pydantic import Field

from srecycle.config import component
from srecycle.selector.base import Contest, Matrix, Selector


@component
class Random(Selector):
    """Takes a challenger with probability `p`.

    Each row draws from a hash of its id, the phase and `seed`, so its fate depends on neither order nor number of rows.
    """

    p: Annotated[float, Field(ge=0, le=1)] = 0.5
    seed: int = 0

    def preference(self, contest: Contest) -> Matrix:
        """Prefer challengers by their draw, all of them below the incumbent where the row's draw says no."""
        rows, versions = contest.usable.shape
        taken = self._draws(contest, 0) < self.p
        challengers = [np.where(taken, 1.0, -2.0) + self._draws(contest, index) for index in range(1, versions)]
        return np.column_stack([np.zeros(rows), *challengers])

    def flip(self, contest: Contest, ahead: Matrix) -> Matrix:
        """Return how `p` must change: a row is taken where its draw is below."""
        return np.where(np.isnan(ahead), np.nan, self._draws(contest, 0) - self.p)

    def _draws(self, contest: Contest, index: int) -> Matrix:
        """Return a number in [0, 1) a row: the first is the row's own, the others are its versions'."""
        return np.array([_uniform(f"{self.seed}|{contest.phase}|{row}|{index}") for row in contest.ids])


def _uniform(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7]) / 2**56
