"""By source: named ones, and the best ones by a score."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.errors import UserError
from srecycle.keep import filtered
from srecycle.keep.limit import IFDMax
from srecycle.keep.sources import BestSources, Sources
from tests.unit.keep.taken import permuted, taken

NAN = math.nan
ELSE, NONE = "source_not_chosen", "source_missing"


def test_sources_keeps_the_named_and_refuses_rows_without_one() -> None:
    chosen = taken(4, source=["flan", "cot", "", "dolly"])
    assert Sources(names=("flan", "dolly")).reasons(chosen).tolist() == ["", ELSE, NONE, ""]


@pytest.mark.parametrize(("sources", "known"), [(["flan", "cot"], "cot, flan"), (["", ""], "not known")])
def test_sources_name_that_no_row_has_is_refused(sources: list[str], known: str) -> None:
    with pytest.raises(UserError, match=rf"keep.sources.names has 'flam', but the rows' sources are {known}: correct"):
        Sources(names=("flam",)).reasons(taken(2, source=sources))


def test_sources_without_names_are_refused() -> None:
    with pytest.raises(ValidationError):
        Sources(names=())


# Means: a 0.5, b 0.6, c 0.4; medians: a 0.5, b 0.3, c 0.4. d has no score; row 9 no source.
SOURCES = ["a", "a", "b", "b", "b", "c", "c", "d", "b", ""]
IFD = [0.4, 0.6, 0.2, 0.3, 1.3, 0.4, 0.4, NAN, NAN, 5.0]


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, "b"),
        ({"count": 2}, "ab"),
        ({"count": 9}, "abc"),
        ({"statistic": "median"}, "a"),
        ({"statistic": "median", "count": 2}, "ac"),
        ({"highest": False}, "c"),
        ({"highest": False, "statistic": "median"}, "b"),
    ],
)
def test_best_sources_are_ranked_by_mean_or_median(settings: dict[str, object], kept: str) -> None:
    told = BestSources(**settings).reasons(taken(10, {"ifd": IFD}, source=SOURCES)).tolist()  # type: ignore[arg-type]
    expected = {"": NONE, "d": "source_without_ifd"}
    assert told == [expected.get(source, "" if source in kept else ELSE) for source in SOURCES]


def test_best_sources_are_judged_by_what_other_filters_let_stand() -> None:
    """Without its row of 1.3, b is the worst."""
    keep = {"best": BestSources(), "ifd_max": IFDMax()}
    kept = filtered(keep, taken(10, {"ifd": IFD}, source=SOURCES)).reason.tolist()
    assert [source for source, reason in zip(SOURCES, kept, strict=True) if not reason] == ["a", "a"]


def test_best_sources_of_equal_ones_the_first_name_is_kept() -> None:
    chosen = taken(3, {"grape": [-1.0, -1.0, -1.0]}, source=["z", "m", "n"])
    assert BestSources(by="grape").reasons(chosen).tolist() == [ELSE, "", ELSE]


def test_best_sources_without_any_source_say_what_to_set() -> None:
    chosen = taken(2, {"ifd": [0.5, 0.4]}, source=["", ""])
    with pytest.raises(UserError, match=r"none of the 2 rows that other .* names its own: set data.source_field"):
        BestSources().reasons(chosen)
    assert BestSources().reasons(taken(0, {"ifd": []}, source=[])).tolist() == []


@given(st.permutations(range(10)), st.integers(1, 4), st.sampled_from(["mean", "median"]))
def test_best_sources_do_not_depend_on_order_and_more_hold_fewer(order: list[int], count: int, statistic: str) -> None:
    chosen = taken(10, {"ifd": IFD}, source=SOURCES)
    one, more = (BestSources(count=number, statistic=statistic) for number in (count, count + 1))  # type: ignore[arg-type]
    told = one.reasons(chosen)
    assert one.reasons(permuted(chosen, order)).tolist() == told[order].tolist()
    assert ((more.reasons(chosen) == "") | (told != "")).all()


@pytest.mark.parametrize("filter", [Sources(names=("a",)), BestSources(count=1)])
def test_sources_reads_what_it_says(filter: Sources | BestSources) -> None:
    assert "source" in filter.needed
    assert ("ifd" in filter.needed) == isinstance(filter, BestSources)
