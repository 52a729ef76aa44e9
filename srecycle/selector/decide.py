"""One phase's decisions as whole columns: pure, so that stages and threshold surfaces decide alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from srecycle.rows import OK, Phase
from srecycle.selector.base import Choice, Matrix, Selector, missing
from srecycle.selector.grid import VersionGrid


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What was decided; arrays of shape [rows], and [rows, 2] for the incumbent beside its best challenger.

    `pair` holds columns of the grid, `chosen` the column that was taken, `preference` what is behind it.
    """

    grid: VersionGrid
    selector: Selector
    pair: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64]
    challengers: npt.NDArray[np.int64]
    preference: Matrix
    flip: Matrix

    @property
    def taken(self) -> npt.NDArray[np.bool_]:
        """Whether the challenger was taken."""
        taken: npt.NDArray[np.bool_] = self.chosen == self.pair[:, 1]
        return taken

    @property
    def values(self) -> Matrix:
        """The selector's score of both, NaN where it has none, shape [rows, 2]."""
        if (score := self.selector.decided_by) is None:
            return np.full(self.pair.shape, np.nan)
        return np.take_along_axis(self.grid.columns[score], self.pair, axis=1)

    def reasons(self) -> npt.NDArray[Any]:
        """Say in a word why each row was decided as it was."""
        status = np.take_along_axis(self.grid.status, self.pair, axis=1)
        scored = np.take_along_axis(self.grid.score_status, self.pair, axis=1)
        unscored = np.frompyfunc(missing, 1, 1)(scored)
        if self.selector.unjudged:
            unscored = np.where((scored == OK) | (scored == "unscored"), self.selector.unjudged, unscored)
        incumbent, challenger = self.preference.T
        with np.errstate(invalid="ignore"):
            close = (challenger > incumbent) != self.taken
        return np.select(
            [
                status[:, 1] != OK,
                np.isnan(challenger),
                np.isnan(incumbent),
                np.isneginf(challenger),
                incumbent == challenger,
                close,
                self.taken,
            ],
            [
                _prefixed("challenger_", status[:, 1]),
                _prefixed("challenger_", unscored[:, 1]),
                _prefixed("incumbent_", unscored[:, 0]),
                np.full(len(incumbent), "challenger_vetoed", dtype=object),
                np.full(len(incumbent), "tie", dtype=object),
                np.full(len(incumbent), "within_margin", dtype=object),
                np.full(len(incumbent), "challenger_won", dtype=object),
            ],
            "incumbent_won",
        )


def decide(grid: VersionGrid, phase: Phase, selector: Selector, incumbents: npt.NDArray[np.int64]) -> Decisions:
    """Choose in every row between the incumbent (a column of the grid, shape [rows]) and its challengers."""
    competing = np.column_stack([incumbents, grid.challengers(phase, incumbents)])
    choice = selector.choose(grid.contest(phase, competing, selector.needed))
    pair = _pair(competing, choice)
    return Decisions(
        grid=grid,
        selector=selector,
        pair=pair,
        chosen=np.where(choice.winner > 0, pair[:, 1], pair[:, 0]),
        challengers=np.count_nonzero(~np.isnan(choice.preference[:, 1:]), axis=1),
        preference=_pair(choice.preference, choice),
        flip=choice.flip,
    )


def _pair(of_versions: npt.NDArray[Any], choice: Choice) -> npt.NDArray[Any]:
    """Return what belongs to the incumbent and to its best challenger, shape [rows, 2]."""
    return np.column_stack([of_versions[:, 0], np.take_along_axis(of_versions, choice.best[:, None], axis=1)])


def _prefixed(prefix: str, words: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Put a prefix before words, of which there are few: each is made once."""
    made = {word: prefix + word for word in set(words)}
    return np.array([made[word] for word in words], dtype=object)
