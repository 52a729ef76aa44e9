"""Keep filters: strictly below, and never a failure that passes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.keep import Chosen
from srecycle.keep.limit import IFDMax, ReversedIFDMax
from srecycle.keep.none import KeepAll
from srecycle.keep.reflected import ResponseReflectedOnly

KINDS = [(IFDMax, "ifd"), (ReversedIFDMax, "r_ifd")]


def _chosen(values: list[float], status: str = "unscored", versions: list[str] | None = None) -> Chosen:
    column = np.array(values, dtype=float)
    other = np.full(len(values), 99.0)
    return Chosen(
        version=np.array(versions or ["both"] * len(values), dtype=object),
        score_status=np.array([status if math.isnan(value) else "ok" for value in values], dtype=object),
        columns={"ifd": column, "r_ifd": column, "perplexity": other},
    )


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_below_keeps_strictly_lower_scores_only(kind: type[IFDMax], name: str) -> None:
    reasons = kind(below=1.0).reasons(_chosen([0.2, math.nextafter(1.0, 0.0), 1.0, 1.5]))
    assert reasons.tolist() == ["", "", f"{name}_too_high", f"{name}_too_high"]
    assert kind.needs == (name,)


@pytest.mark.parametrize(("kind", "name"), KINDS)
@pytest.mark.parametrize("status", ["empty_response", "too_short", "non_finite", "unscored"])
def test_below_missing_score_is_refused_with_its_reason(kind: type[IFDMax], name: str, status: str) -> None:
    assert kind(below=1e9).reasons(_chosen([math.nan, 0.5], status)).tolist() == [f"{name}_{status}", ""]


@pytest.mark.parametrize(("kind", "name"), KINDS)
def test_below_score_that_overflowed_is_refused_as_non_finite(kind: type[IFDMax], name: str) -> None:
    """Its likelihoods are ok, and their ratio is no number: that is the reason, and not `ok`."""
    assert kind(below=1e9).reasons(_chosen([math.nan, 0.5], "ok")).tolist() == [f"{name}_non_finite", ""]


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_below_limit_without_meaning_is_refused(limit: float) -> None:
    with pytest.raises(ValidationError):
        IFDMax(below=limit)


def test_response_reflected_only_keeps_the_two_reflected_versions() -> None:
    versions = ["original", "instruction", "response", "both"]
    reasons = ResponseReflectedOnly().reasons(_chosen([math.nan] * 4, versions=versions))
    assert reasons.tolist() == ["response_not_reflected"] * 2 + ["", ""]


def test_keep_all_keeps_even_what_has_no_score() -> None:
    assert KeepAll().reasons(_chosen([math.nan, 5.0])).tolist() == ["", ""]


@given(st.lists(st.floats(0, 3) | st.just(math.nan), min_size=1), st.floats(0.01, 3), st.floats(0, 3))
def test_below_higher_limit_keeps_all_that_a_lower_one_keeps(values: list[float], limit: float, more: float) -> None:
    narrow, wide = (IFDMax(below=one).reasons(_chosen(values)) == "" for one in (limit, limit + more))
    assert (wide | ~narrow).all()
