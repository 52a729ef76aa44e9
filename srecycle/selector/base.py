"""What a selector is: it chooses among the versions of each row, from columns that it declares.

To add one: a file here with a subclass that says what it `needs` and how much it prefers each version, and a YAML in
conf/selector that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from srecycle.config import Component, component
from srecycle.rows import OK, Phase

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The versions that stand against each other, row by row; index 0 is the incumbent.

    `ids` has shape [rows], `usable` and every column [rows, versions]. An unusable version's scores are NaN.
    """

    phase: Phase
    ids: npt.NDArray[np.str_]
    usable: npt.NDArray[np.bool_]
    columns: Mapping[str, Matrix]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    `winner` is the winning version's index and `best` that of the challenger preferred most (the first, where there is
    no verdict on any), both of shape [rows]. `preference` is what is behind them, shape [rows, versions]; an unusable
    version's is NaN.
    """

    winner: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    preference: Matrix


def missing(status: str) -> str:
    """Return why a score is missing, by the status of its likelihoods: a ratio of good ones can still overflow."""
    return "non_finite" if status == OK else status


@component
class Selector(Component, ABC):
    """Chooses the version that it prefers most. `tie` says who wins between equals."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The score columns that this selector reads (`srecycle.scorer.SCORES`)."""

    score: ClassVar[str | None] = None
    """The column whose values stand in the decision, where the choice is by one."""

    takes_challengers: ClassVar[bool] = True
    """False where no challenger can ever win, so that none needs to be made."""

    tie: Literal["incumbent", "challenger"] = "incumbent"

    @abstractmethod
    def preference(self, contest: Contest) -> Matrix:
        """Return how much each version is preferred, shape [rows, versions]. Higher wins; NaN is no verdict."""

    def choose(self, contest: Contest) -> Choice:
        """Choose one version a row.

        A challenger that is unusable or without verdict never wins, and of equal ones the first is taken. Against an
        incumbent without verdict there is nothing to compare with, so it stands.
        """
        preference = self.preference(contest)
        assert preference.shape == contest.usable.shape, f"{type(self).__name__} returned shape {preference.shape}"
        standing = np.where(contest.usable, preference, np.nan)
        # The lowest verdict there is (-inf, a veto) still comes before none.
        ranked = np.where(np.isnan(standing), -np.inf, np.maximum(standing, np.finfo(np.float64).min))
        best = ranked[:, 1:].argmax(axis=1) + 1
        incumbent, challenger = standing[:, 0], np.take_along_axis(standing, best[:, None], axis=1)[:, 0]
        wins = (challenger >= incumbent) if self.tie == "challenger" else (challenger > incumbent)
        return Choice(winner=np.where(wins, best, 0), best=best, preference=standing)


@component
class ScoreSelector(Selector, ABC):
    """Chooses by one score column; `higher_wins` says in which direction."""

    higher_wins: ClassVar[bool]

    def preference(self, contest: Contest) -> Matrix:
        """Prefer by the score, in the selector's direction."""
        assert self.score is not None, f"{type(self).__name__} declares no score"
        values = contest.columns[self.score]
        return values if self.higher_wins else -values
