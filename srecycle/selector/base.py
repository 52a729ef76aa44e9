"""What a selector is: it chooses among the versions of each row, from columns that it declares.

To add one: a file here with a subclass that says what it `needs` and how much it prefers each version, and a YAML in
conf/selector that names it.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from srecycle.config import Component, component
from srecycle.rows import OK, Phase

Matrix = npt.NDArray[np.float64]
Texts = npt.NDArray[Any]

TEXTS = ("instruction", "input", "response", "critique", "reference")
"""The texts of a version that a selector can need."""

COHERENCE = "coherence"
"""The cosine between the embeddings of a version's instruction and its response: a column that an embedder computes."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The versions that stand against each other, row by row; index 0 is the incumbent.

    `ids` has shape [rows]; `usable`, every score in `columns` and every text in `texts` (of dtype object, "" where
    there is no version) have [rows, versions]. An unusable version's scores are NaN. Only what the selector needs is
    there.
    """

    phase: Phase
    ids: npt.NDArray[np.str_]
    usable: npt.NDArray[np.bool_]
    columns: Mapping[str, Matrix]
    texts: Mapping[str, Texts] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    `winner` is the winning version's index and `best` that of the challenger preferred most (the first, where there is
    no verdict on any), both of shape [rows]. `preference` is what is behind them, shape [rows, versions]; an unusable
    version's is NaN. `flip` [rows] is the smallest change of the selector's threshold that decides the row the other
    way, NaN where none does.
    """

    winner: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    preference: Matrix
    flip: Matrix


def missing(status: str) -> str:
    """Return why a score is missing, by the status of its likelihoods: a ratio of good ones can still overflow."""
    return "non_finite" if status == OK else status


@component
class Selector(Component, ABC):
    """Chooses the version that it prefers most. `tie` says who wins between equals."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The columns that this selector reads: scores (`srecycle.scorer.SCORES`), `COHERENCE`, or `TEXTS`."""

    score: ClassVar[str | None] = None
    """The column whose values stand in the decision, where the choice is by one."""

    unjudged: ClassVar[str] = ""
    """Why a version has no verdict, where that isn't for want of likelihoods."""

    takes_challengers: ClassVar[bool] = True
    """False where no challenger can ever win, so that none needs to be made."""

    tie: Literal["incumbent", "challenger"] = "incumbent"

    @property
    def needed(self) -> tuple[str, ...]:
        """What this selector reads as it is configured."""
        return self.needs

    @property
    def decided_by(self) -> str | None:
        """The column whose values stand in the decision, as this selector is configured."""
        return self.score

    @property
    def lead(self) -> float | None:
        """By how much a challenger must be preferred, where that is a threshold to be varied."""
        return None

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
        with np.errstate(invalid="ignore"):  # two vetoes
            ahead = np.where(challenger == incumbent, 0.0, challenger - incumbent)
        if self.lead is None:
            wins = (challenger >= incumbent) if self.tie == "challenger" else (challenger > incumbent)
        else:
            wins = (ahead >= self.lead) if self.tie == "challenger" else (ahead > self.lead)
        return Choice(
            winner=np.where(wins, best, 0),
            best=best,
            preference=standing,
            flip=self.flip(contest, ahead),
        )

    def flip(self, contest: Contest, ahead: Matrix) -> Matrix:
        """Return the change of the selector's threshold that flips each row, shape [rows]; NaN where none does.

        `ahead` [rows] is how much more than the incumbent the best challenger is preferred.
        """
        if self.lead is None:
            return np.full(len(ahead), np.nan)
        return np.where(np.isfinite(ahead), ahead - self.lead, np.nan)


@component
class ScoreSelector(Selector, ABC):
    """Chooses by one score column; `higher_wins` says in which direction.

    A challenger must be ahead by more than `margin` (in the score's units; at 0 by anything, below 0 it may even be
    behind by less than that).
    """

    higher_wins: ClassVar[bool]

    margin: float = 0.0

    @property
    def lead(self) -> float:
        """The margin."""
        return self.margin

    def preference(self, contest: Contest) -> Matrix:
        """Prefer by the score, in the selector's direction."""
        assert self.decided_by is not None, f"{type(self).__name__} declares no score"
        values = contest.columns[self.decided_by]
        return values if self.higher_wins else -values
