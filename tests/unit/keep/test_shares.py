"""Shares of the rows: by a score, at random, by length, and matched in length; each against cases counted by hand."""

import hashlib
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.keep import Chosen, filtered
from srecycle.keep.length_matched import LengthMatched
from srecycle.keep.limit import IFDMax
from srecycle.keep.longest import Longest
from srecycle.keep.random import RandomShare
from srecycle.keep.share import Share
from srecycle.keep.top import Top
from srecycle.scorer import SCORES
from tests.unit.keep.taken import permuted, taken

NAN = math.nan
KINDS: tuple[type[Share], ...] = (Top, RandomShare, Longest, LengthMatched)


def _rows(values: list[float], responses: list[str] | None = None) -> Chosen:
    return taken(len(values), {"ifd": values}, response=responses or ["x"] * len(values))


def _many(seed: int = 0, count: int = 200) -> Chosen:
    rng = random.Random(seed)
    values = [NAN if rng.random() < 0.05 else rng.random() for _ in range(count)]
    return _rows(values, ["x" * int(100 * rng.random() ** 2) for _ in range(count)])


def _kept(one: Share, chosen: Chosen) -> set[str]:
    return {*chosen.id[one.reasons(chosen) == ""]}


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({"rows": 1}, ["-", "", "-", "-", "?"]),
        ({"rows": 2}, ["-", "", "", "-", "?"]),  # of equal ones, the id that comes first
        ({"rows": 3}, ["-", "", "", "", "?"]),
        ({"rows": 9}, ["", "", "", "", "?"]),
        ({"fraction": 0.4}, ["-", "", "", "-", "?"]),
        ({"fraction": 1.0}, ["", "", "", "", "?"]),
        ({"rows": 1, "highest": False}, ["", "-", "-", "-", "?"]),
        ({"fraction": 0.05}, ["-", "", "-", "-", "?"]),  # one at least
        ({"fraction": 0.5}, ["-", "", "", "", "?"]),  # 2.5, and halves go up
    ],
)
def test_top_keeps_the_best_and_refuses_rows_without_score(settings: dict[str, Any], reasons: list[str]) -> None:
    told = {"": "", "-": "ifd_not_in_top", "?": "ifd_too_short"}
    chosen = taken(5, {"ifd": [0.1, 0.9, 0.5, 0.5, NAN]}, status=["ok"] * 4 + ["too_short"])
    assert Top(**settings).reasons(chosen).tolist() == [told[one] for one in reasons]


@pytest.mark.parametrize(
    ("fraction", "rows", "count"),
    [(0.5, 1, 1), (0.5, 5, 3), (0.25, 10, 3), (0.29, 50, 15), (0.01, 3, 1), (1e-9, 1, 1), (1.0, 7, 7), (0.1, 0, 0)],
)
def test_share_fraction_keeps_one_at_least_and_rounds_halves_up(fraction: float, rows: int, count: int) -> None:
    assert len(_kept(RandomShare(fraction=fraction), _many(count=rows))) == count


def test_top_score_that_overflowed_is_refused_as_non_finite() -> None:
    chosen = taken(2, {"r_ifd": [NAN, 0.5]}, status=["ok", "ok"])
    assert Top(rows=2, by="r_ifd").reasons(chosen).tolist() == ["r_ifd_non_finite", ""]


def test_top_is_chosen_among_the_rows_that_other_filters_let_stand() -> None:
    """IFD of 1 and more is refused first; of the four that are left, half are kept."""
    kept = filtered({"a_top": Top(fraction=0.5), "ifd_max": IFDMax()}, _rows([1.5, 0.9, 0.8, 1.0, 0.2, 0.1]))
    above, below = "ifd_too_high", "ifd_not_in_top"
    assert kept.reason.tolist() == [above, "", "", above, below, below]


def test_top_slack_is_the_distance_to_the_last_row_kept() -> None:
    slack = Top(rows=2).slack(_rows([0.1, 0.9, 0.5, 0.5, NAN]))
    assert slack is not None
    assert slack[:3] == pytest.approx([-0.4, 0.4, 0.0])
    assert -1e-300 < slack[3] < 0 and math.isnan(slack[4])
    lowest = Top(rows=1, highest=False).slack(_rows([0.25, 0.75]))
    assert lowest is not None and lowest.tolist() == [0.0, -0.5]


@pytest.mark.parametrize("values", [[], [NAN, NAN], [0.1, 0.2]])
def test_top_without_a_cut_has_no_slack(values: list[float]) -> None:
    assert Top(rows=2).slack(_rows(values)) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings", [{}, {"fraction": 0.1, "rows": 3}, {"fraction": 0.0}, {"fraction": 1.1}, {"rows": 0}, {"fraction": NAN}]
)
def test_share_that_says_no_amount_or_a_wrong_one_is_refused(kind: type[Share], settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**settings)


def test_top_unknown_score_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match=r"by\n.*choose one of ifd, r_ifd"):
        Top(rows=1, by="idf")
    for name in SCORES:
        assert Top(rows=1, by=name).needed == (name,)
        assert LengthMatched(rows=1, by=name).needed == ("response", name)


def test_random_draws_by_id_and_seed_alone() -> None:
    chosen = _many()
    one = RandomShare(fraction=0.3)
    assert len(_kept(one, chosen)) == 60
    assert {*one.reasons(chosen)} == {"", "not_drawn"}
    others = _many(seed=1)  # the same ids, and nothing else the same
    assert _kept(one, others) == _kept(one, chosen)
    assert len(_kept(RandomShare(fraction=0.3, seed=1), chosen) & _kept(one, chosen)) < 40


def test_random_share_is_another_draw_than_that_of_the_rows_mixed_in() -> None:
    """Assembling draws by seed and id too: one draw would mix in the originals of the very rows that were kept."""
    chosen = _many(count=1000)
    mixed = {*sorted(chosen.id, key=lambda one: hashlib.sha256(f"0|{one}".encode()).digest())[:200]}
    kept = {one: _kept(one, chosen) for one in (RandomShare(rows=200), LengthMatched(rows=200))}
    for one in kept.values():
        assert 20 < len(mixed & one) < 70, "a fifth by chance"
    assert 20 < len(set.intersection(*kept.values())) < 70


def test_longest_counts_characters_and_breaks_ties_by_id() -> None:
    responses = ["aa", "\u00e9\u00e9\u00e9\u00e9", "bbb", "ccc", ""]
    chosen = taken(5, response=responses)
    told = Longest(rows=2).reasons(chosen).tolist()
    assert told == ["response_not_longest", "", "", "response_not_longest", "response_not_longest"]
    slack = Longest(rows=2).slack(chosen)
    assert slack is not None and slack[[0, 1, 2, 4]].tolist() == [-1, 1, 0, -3]


def test_length_matched_has_as_many_of_each_length_as_the_top_share() -> None:
    """The best four are one short and three long responses: any short one and any three long ones stand for them."""
    values = [0.9, *[0.1] * 9, 0.8, 0.7, 0.6, *[0.2] * 7]
    chosen = _rows(values, ["s"] * 10 + ["long"] * 10)
    seen: Counter[str] = Counter()
    for seed in range(40):
        reasons = LengthMatched(rows=4, bins=2, seed=seed).reasons(chosen)
        assert {*reasons} == {"", "not_drawn"}
        assert Counter(chosen.texts["response"][reasons == ""].tolist()) == {"s": 1, "long": 3}
        seen.update(chosen.id[reasons == ""].tolist())
    assert len(seen) > 16, "top rows and others are drawn alike"


def test_length_matched_follows_the_distribution_where_top_rows_are_long() -> None:
    rng = random.Random(3)
    lengths = [rng.randint(1, 400) for _ in range(2000)]
    values = [length / 400 + rng.random() for length in lengths]
    chosen = _rows(values, ["x" * length for length in lengths])
    means = {}
    for one in (Top(fraction=0.1), LengthMatched(fraction=0.1), RandomShare(fraction=0.1)):
        kept = one.reasons(chosen) == ""
        assert kept.sum() == 200
        means[type(one)] = np.mean(np.array(lengths)[kept])
    assert means[LengthMatched] == pytest.approx(means[Top], rel=0.02)
    assert means[RandomShare] < 0.8 * means[Top]


def test_length_matched_draws_out_of_scored_rows_only() -> None:
    chosen = _rows([NAN, 0.5, NAN, 0.4], ["x"] * 4)
    told = LengthMatched(fraction=1.0).reasons(chosen).tolist()
    assert told == ["ifd_unscored", "", "ifd_unscored", ""]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("values", [[], [NAN], [NAN, NAN, NAN]])
def test_share_of_nothing_or_of_rows_without_score_is_told(kind: type[Share], values: list[float]) -> None:
    assert len(kind(fraction=0.5).reasons(_rows(values))) == len(values)
    if kind in (Top, LengthMatched):
        assert {*kind(fraction=1.0).reasons(_rows(values))} <= {"ifd_unscored"}


SHARES = st.floats(0.001, 1)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 99), small=SHARES, large=SHARES)
def test_share_that_is_larger_keeps_all_that_a_smaller_one_keeps(
    kind: type[Share], seed: int, small: float, large: float
) -> None:
    chosen = _many(seed, 60)
    few, many = (_kept(kind(fraction=one), chosen) for one in sorted((small, large)))
    assert few <= many
    assert len(many) == min(max(1, round(max(small, large) * 60)), len(_kept(kind(fraction=1.0), chosen)))


@pytest.mark.parametrize("kind", KINDS)
@given(order=st.permutations(range(40)))
def test_share_does_not_depend_on_the_order_of_rows(kind: type[Share], order: list[int]) -> None:
    chosen = _many(count=40)
    reasons = kind(fraction=0.3).reasons(chosen)
    assert kind(fraction=0.3).reasons(permuted(chosen, order)).tolist() == reasons[order].tolist()
    assert {type(one) for one in reasons} == {str}
