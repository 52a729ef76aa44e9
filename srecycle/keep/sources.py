"""By the set that a row came from, where the source of rows is a mixture (`data.source_field`)."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.keep.base import Chosen, Column, Keep, Reasons
from srecycle.keep.share import ScoreName

NO_SOURCE = "source_missing"
NOT_CHOSEN = "source_not_chosen"


@component
class Sources(Keep):
    """Keeps the rows of the sources that `names` lists."""

    needs: ClassVar[tuple[str, ...]] = ("source",)

    names: Annotated[tuple[str, ...], Field(min_length=1)]

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows of other sources, and of none. Raises UserError where no row is of a named one."""
        sources = chosen.texts["source"]
        known = sorted({*sources} - {""})
        if unknown := [name for name in self.names if name not in known]:
            raise UserError(
                f"keep.sources.names has {unknown[0]!r}, but the rows' sources are {', '.join(known) or 'not known'}: "
                "correct the name, or set data.source_field to the column that tells them"
            )
        return _told(sources, np.isin(sources.astype(str), self.names))


@component
class BestSources(Keep):
    """Keeps the rows of the `count` sources whose mean or median of a score is highest (or lowest).

    They are judged by the rows that the other filters let stand, less those without the score; of equal ones, those
    whose name comes first are kept.
    """

    needs: ClassVar[tuple[str, ...]] = ("source",)
    compares: ClassVar[bool] = True

    count: Annotated[int, Field(ge=1)] = 1
    by: ScoreName = "ifd"
    statistic: Literal["mean", "median"] = "mean"
    highest: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """The rows' sources, and the score."""
        return (*self.needs, self.by)

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows of other sources, and of none. Raises UserError where no row has a source."""
        sources = chosen.texts["source"]
        if len(sources) and not (sources != "").any():
            raise UserError(
                f"keep.best_sources ranks sources, but none of the {len(sources)} rows that other filters let stand "
                "names its own: set data.source_field to the column that tells them, or leave this filter out"
            )
        scored = ~np.isnan(chosen.columns[self.by])
        ranked = {name: self._rank(chosen.columns[self.by][scored & (sources == name)]) for name in {*sources[scored]}}
        best = sorted(ranked.keys() - {""}, key=lambda name: (ranked[name], name))[: self.count]
        told = _told(sources, np.isin(sources.astype(str), best))
        told[(told == NOT_CHOSEN) & ~np.isin(sources.astype(str), list(ranked))] = f"source_without_{self.by}"
        return told

    def _rank(self, values: Column) -> float:
        found = float(np.mean(values) if self.statistic == "mean" else np.median(values))
        return -found if self.highest else found


def _told(sources: npt.NDArray[Any], wanted: npt.NDArray[np.bool_]) -> Reasons:
    told = np.where(wanted, "", NOT_CHOSEN).astype(object)
    told[sources == ""] = NO_SOURCE
    return told
