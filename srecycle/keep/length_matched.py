"""A random share with the response lengths of the top share by a score: what is left of the score beyond length."""

from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Reasons
from srecycle.keep.share import ByScore, draws, first, lengths


@component
class LengthMatched(ByScore):
    """Draws, out of each of `bins` quantile bins of response length, as many rows as the top share has there.

    Top rows can be drawn too: it is the draw that knows nothing of the score. Lengths are in characters; the draw is a
    hash of a row's id and `seed`, so a larger share holds the smaller one. Rows without the score are refused, so that
    both shares come out of the same rows.
    """

    needs: ClassVar[tuple[str, ...]] = ("response",)

    bins: Annotated[int, Field(ge=1)] = 20
    seed: int = 0

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse the rows that were not drawn, and rows without the score."""
        told = self.unscored(chosen)
        scored = told == ""
        length, draw = lengths(chosen.texts["response"]), draws(chosen.id, f"keep.length_matched|{self.seed}")
        bins, top = _bins(length, scored, self.bins), self.top(chosen)
        drawn = np.zeros(len(told), dtype=bool)
        for one in np.unique(bins[top]):
            inside = np.where(scored & (bins == one), draw, np.nan)
            drawn |= first(inside, chosen.id, int(np.count_nonzero(top & (bins == one))))
        return np.where(scored & ~drawn, "not_drawn", told).astype(object)


def _bins(length: Column, scored: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.int64]:
    """Return each row's bin, shape [rows]. Equal lengths share one, so long runs of them make fewer bins."""
    if not scored.any():
        return np.zeros(len(length), dtype=np.int64)
    edges = np.quantile(length[scored], np.linspace(0, 1, count + 1)[1:-1])
    return np.searchsorted(edges, length, side="right")
