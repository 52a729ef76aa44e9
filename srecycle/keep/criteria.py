"""Floors under the scores that the teacher gave its criteria (`reflection.score_criteria=true`).

A teacher scores the pair that it is shown, before it rewrites it: the scores are of the pair that was rewritten, and
not of the rewrite. A floor therefore keeps rewrites of samples that were good already. Originals have no scores.
"""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.keep.base import Chosen, Column, Keep, Reasons
from srecycle.reflection.criteria import HIGHEST, LOWEST
from srecycle.rows import kind_of


def _spaced(floors: dict[str, float]) -> dict[str, float]:
    spaced = {_name(name): floor for name, floor in floors.items()}
    if len(spaced) < len(floors):
        raise ValueError(
            f"{', '.join(floors)}: two of these name the same criterion, once with underscores; leave one out"
        )
    return spaced


def _name(criterion: str) -> str:
    return criterion.replace("_", " ")


@component
class CriteriaFloors(Keep):
    """Keeps rows whose score is at least its floor for every criterion that `floors` names (as `reflection` does).

    The scores are of the pair that was rewritten: a floor keeps rewrites of samples that were good already. In names
    underscores stand for spaces too, since the command line takes no spaces there.
    """

    needs: ClassVar[tuple[str, ...]] = ("criteria",)

    floors: Annotated[
        dict[str, Annotated[float, Field(ge=LOWEST, le=HIGHEST)]], Field(min_length=1), AfterValidator(_spaced)
    ]

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows by the first criterion that is missing, or below its floor.

        Raises UserError where a criterion has no score in any rewrite.
        """
        self._require_scores(chosen)
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

    def _require_scores(self, chosen: Chosen) -> None:
        known = sorted({name for one in chosen.texts["criteria"] for name in _given(one)})
        rewritten = any(kind_of(version) != "original" for version in chosen.version)
        unknown = [name for name in self.floors if name not in known]
        if not rewritten or not unknown:
            return
        mend = "correct the name" if known else "set reflection.score_criteria=true"
        raise UserError(
            f"keep.criteria.floors has {unknown[0]!r}, but the criteria with scores are {', '.join(known) or 'none'}: "
            f"{mend}, or leave this filter out"
        )

    def _above(self, chosen: Chosen) -> dict[str, Column]:
        """Return how far each row is above the floors, by criterion; NaN where it has no score."""
        given = [_given(one) for one in chosen.texts["criteria"]]
        return {
            name: np.array([scores.get(name, np.nan) for scores in given], dtype=np.float64) - floor
            for name, floor in self.floors.items()
        }


def _given(criteria: Any) -> dict[str, float]:
    return {_name(one["name"]): one["score"] for one in criteria or ()}
