"""Keep filters: which of the versions that the student took it is trained on (the paper, section 3.2).

A filter returns a reason for every row that it refuses, and an empty string for those that it keeps. A row without the
score that a filter needs is refused, and the reason says so: a failure is never a number that passes "< 1".
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import Component, component
from srecycle.rows import kind_of
from srecycle.selector.base import missing

Reasons = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the student took: the version's name, its scores, and why some are missing; arrays of shape [rows]."""

    version: npt.NDArray[Any]
    score_status: npt.NDArray[Any]
    columns: Mapping[str, npt.NDArray[np.float64]]


@component
class Keep(Component, ABC):
    """Refuses rows."""

    needs: ClassVar[tuple[str, ...]] = ()
    """The score columns that this filter reads."""

    @abstractmethod
    def reasons(self, chosen: Chosen) -> Reasons:
        """Return why each row is refused, shape [rows]; "" keeps it."""


@component
class KeepAll(Keep):
    """Refuses nothing."""

    def reasons(self, chosen: Chosen) -> Reasons:
        """Keep every row."""
        return np.full(len(chosen.version), "", dtype=object)


@component
class _Below(Keep, ABC):
    below: Annotated[float, Field(gt=0)] = 1.0

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows whose score is not below the limit, or missing."""
        (name,) = self.needs
        values = chosen.columns[name]
        refused = np.where(values < self.below, "", f"{name}_too_high").astype(object)
        absent = np.isnan(values)
        refused[absent] = [f"{name}_{missing(status)}" for status in chosen.score_status[absent]]
        return refused


@component
class IFDMax(_Below):
    """Keeps rows with IFD strictly below the limit: the instruction must help to predict the response at all."""

    needs: ClassVar[tuple[str, ...]] = ("ifd",)


@component
class ReversedIFDMax(_Below):
    """Keeps rows with r-IFD strictly below the limit: the response must help to guess the instruction at all."""

    needs: ClassVar[tuple[str, ...]] = ("r_ifd",)


@component
class ResponseReflectedOnly(Keep):
    """Keeps rows whose response was reflected on and taken (the paper discards the others)."""

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse the original response and that of the instruction phase."""
        reflected = np.array([kind_of(version) in ("response", "both") for version in chosen.version], dtype=bool)
        return np.where(reflected, "", "response_not_reflected").astype(object)
