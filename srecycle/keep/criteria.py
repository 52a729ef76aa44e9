"""Floors under the scores that the teacher gave its criteria (`reflection.score_criteria=true`).

A teacher scores the pair that it is shown, before it rewrites it: a version's scores say how good what it was made out
of was, criterion by criterion. Originals have none.
"""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Keep, Reasons
from srecycle.reflection.criteria import HIGHEST, LOWEST


@component
class CriteriaFloors(Keep):
    """Keeps rows whose score is at least its floor for every criterion that `floors` names (as `reflection` does)."""

    needs: ClassVar[tuple[str, ...]] = ("criteria",)

    floors: Annotated[dict[str, Annotated[float, Field(ge=LOWEST, le=HIGHEST)]], Field(min_length=1)]

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows by the first criterion that is missing, or below its floor."""
        told = np.full(len(chosen.version), "", dtype=object)
        for name, above in reversed(self._above(chosen).items()):
            reason = name.replace(" ", "_")
            told = np.where(above < 0, f"{reason}_too_low", told)
            told = np.where(np.isnan(above), f"{reason}_unscored", told)
        return told

    def slack(self, chosen: Chosen) -> Column:
        """Return how far each row is above the nearest floor; a refused one, above the only floor that it misses."""
        above = np.stack([*self._above(chosen).values()])
        below = np.count_nonzero(above < 0, axis=0)
        nearest: Column = above.min(axis=0)  # NaN where one of them is
        return np.where(below > 1, np.nan, nearest)

    def _above(self, chosen: Chosen) -> dict[str, Column]:
        """Return how far each row is above the floors, by criterion; NaN where it has no score."""
        given = [_given(one) for one in chosen.texts["criteria"]]
        return {
            name: np.array([scores.get(name, np.nan) for scores in given], dtype=np.float64) - floor
            for name, floor in self.floors.items()
        }


def _given(criteria: Any) -> dict[str, float]:
    return {one["name"]: one["score"] for one in criteria or ()}
