"""Which rows a filter prefers that keeps only some of those that are alike: by a score, or without one otherwise."""

import numpy as np

from srecycle.keep.base import Chosen, Column, Reasons
from srecycle.selector.base import missing


def preferences(chosen: Chosen, by: str | None, highest: bool, otherwise: Column) -> Column:
    """Return how much each row is preferred, shape [rows]: higher comes first, NaN has no score."""
    if by is None:
        return otherwise
    values = chosen.columns[by]
    return values if highest else -values


def unscored(chosen: Chosen, by: str | None) -> Reasons:
    """Return why each row has no score, shape [rows]; "" where it has one, or needs none."""
    told = np.full(len(chosen.version), "", dtype=object)
    if by is not None:
        absent = np.isnan(chosen.columns[by])
        told[absent] = [f"{by}_{missing(status)}" for status in chosen.score_status[absent]]
    return told
