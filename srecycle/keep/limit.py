"""Limits on a score (the paper, section 3.2: IFD < 1 and r-IFD < 1)."""

from abc import ABC
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import Chosen, Column, Keep, Reasons
from srecycle.selector.base import missing


@component
class Below(Keep, ABC):
    """Keeps rows whose score is strictly below the limit."""

    below: Annotated[float, Field(gt=0)] = 1.0

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows whose score is not below the limit, or missing."""
        (name,) = self.needs
        values = chosen.columns[name]
        refused = np.where(values < self.below, "", f"{name}_too_high").astype(object)
        absent = np.isnan(values)
        refused[absent] = [f"{name}_{missing(status)}" for status in chosen.score_status[absent]]
        return refused

    def slack(self, chosen: Chosen) -> Column:
        """Return how far below the limit each row is. At the limit itself the slack is that of the next number."""
        (name,) = self.needs
        slack = self.below - chosen.columns[name]
        return np.where(slack == 0, -np.finfo(np.float64).tiny, slack)


@component
class IFDMax(Below):
    """Keeps rows with IFD strictly below the limit: the instruction must help to predict the response at all."""

    needs: ClassVar[tuple[str, ...]] = ("ifd",)


@component
class ReversedIFDMax(Below):
    """Keeps rows with r-IFD strictly below the limit: the response must help to guess the instruction at all."""

    needs: ClassVar[tuple[str, ...]] = ("r_ifd",)
