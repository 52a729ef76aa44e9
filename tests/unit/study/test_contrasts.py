"""Intervals over seeds, bases and items: against plain loops, closed forms, and simulated studies."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from srecycle.study.contrasts import Answered, Estimate, Resampled, estimate, holm, mean, prediction, resampled


def _tests(
    rng: np.random.Generator, shape: tuple[int, int, int, int], columns: Sequence[str] = ("a", "b")
) -> list[Answered]:
    seeds, bases, splits, items = shape
    return [
        Answered(
            column=column, seed=f"s{seed}", base=f"b{base}", right=rng.integers(0, 2, (splits, items)).astype(float)
        )
        for column in columns
        for seed in range(seeds)
        for base in range(bases)
    ]


def test_resampled_value_is_the_mean_over_splits_seeds_and_bases() -> None:
    tests = _tests(np.random.default_rng(0), (3, 2, 2, 20))
    found = resampled(tests, [0, 1], resamples=50)
    for column in ("a", "b"):
        own = [one.right.mean() for one in tests if one.column == column]
        assert found[column].value == pytest.approx(np.mean(own))
        by_seed = {
            f"s{n}": np.mean([one.right.mean() for one in tests if (one.column, one.seed) == (column, f"s{n}")])
            for n in range(3)
        }
        assert found[column].by_seed == pytest.approx(by_seed)
    only = resampled(tests, [1], resamples=50)["a"]
    assert only.value == pytest.approx(np.mean([one.right[1].mean() for one in tests if one.column == "a"]))


def test_resampled_is_the_same_every_time_and_whatever_the_order() -> None:
    tests = _tests(np.random.default_rng(1), (3, 2, 2, 10))
    first = resampled(tests, [0, 1], resamples=40)["b"].drawn
    assert np.array_equal(first, resampled(tests, [0, 1], resamples=40)["b"].drawn)
    assert np.array_equal(first, resampled(tests[::-1], [0, 1], resamples=40)["b"].drawn)
    assert not np.array_equal(first, resampled(tests, [0, 1], resamples=40, seed=1)["b"].drawn)


def test_resampled_spread_is_that_of_seeds_and_items_by_hand() -> None:
    """Two levels without bases: the variance of a resampled mean is known in closed form."""
    rng = np.random.default_rng(2)
    tests = _tests(rng, (4, 1, 1, 30), ("a",))
    drawn = resampled(tests, [0], resamples=20_000)["a"].drawn
    means = np.array([one.right.mean() for one in tests])
    within = np.array([one.right.var() / 30 for one in tests])
    expected = means.var() / 4 + within.mean() / 4
    assert drawn.var() == pytest.approx(expected, rel=0.05)
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.003)


def test_resampled_bases_are_crossed_with_seeds() -> None:
    """Where bases alone differ, a resample is one of the mixtures of two bases, whatever its seeds."""
    right = {"b0": np.zeros((1, 5)), "b1": np.ones((1, 5))}
    tests = [Answered(column="a", seed=f"s{n}", base=base, right=right[base]) for n in range(3) for base in right]
    drawn = resampled(tests, [0], resamples=400)["a"].drawn
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.0, 0.5, 1.0]
    assert counts / 400 == pytest.approx([0.25, 0.5, 0.25], abs=0.08)


def test_less_of_arms_that_answer_alike_has_no_spread() -> None:
    tests = _tests(np.random.default_rng(3), (3, 2, 2, 25), ("a",))
    twin = [Answered(column="b", seed=one.seed, base=one.base, right=one.right) for one in tests]
    found = resampled([*tests, *twin], [0, 1])
    gap = estimate(found["a"].less(found["b"]))
    assert (gap.value, gap.stderr, gap.low, gap.high, gap.p) == (0.0, 0.0, 0.0, 0.0, 1.0)
    assert estimate(found["a"]).stderr > 0  # each by itself has some: items are paired


def test_less_missing_run_leaves_the_others() -> None:
    tests = [one for one in _tests(np.random.default_rng(4), (3, 2, 1, 12)) if (one.column, one.seed) != ("b", "s2")]
    gap = resampled(tests, [0])["a"].less(resampled(tests, [0])["b"])
    assert set(gap.by_seed) == {"s0", "s1"}
    assert math.isfinite(estimate(gap).stderr) and estimate(gap).seeds == 2


def _found(value: float, spread: float, seeds: int) -> Estimate:
    drawn = value + spread * np.array([-1.0, 1.0] * 50)
    return estimate(Resampled(value=value, drawn=drawn, by_seed={str(n): value for n in range(seeds)}))


def test_estimate_is_students_with_the_spread_widened_for_few_seeds() -> None:
    one = _found(0.1, 0.02, 5)
    error = 0.02 * math.sqrt(5 / 4)
    assert one.stderr == pytest.approx(error)
    reach = stats.t(4).ppf(0.975) * error
    assert (one.low, one.high) == pytest.approx((0.1 - reach, 0.1 + reach))
    assert one.p == pytest.approx(2 * stats.t(4).sf(0.1 / error)) and (one.p < 0.05) == (one.low > 0)
    assert _found(0.1, 0.02, 3).p > one.p > _found(0.1, 0.02, 50).p
    assert _found(0.1, 0.02, 1).p == pytest.approx(2 * stats.norm().sf(5.0))  # of items alone


def test_estimate_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Simulated studies of five seeds with effects that vary by seed: a plain percentile interval would cover 83%."""
    rng, covered, studies = np.random.default_rng(5), 0, 300
    for _ in range(studies):
        effects = rng.normal(0.1, 0.05, 5)
        tests = []
        for seed, effect in enumerate(effects):
            level = rng.random((1, 60))
            for column, chance in (("a", 0.5 + effect), ("b", 0.5)):
                tests.append(Answered(column=column, seed=str(seed), base="", right=(level < chance).astype(float)))
        found = resampled(tests, [0], resamples=300)
        gap = estimate(found["a"].less(found["b"]))
        covered += gap.low <= 0.1 <= gap.high
    assert 0.91 < covered / studies <= 1.0


def test_mean_of_settings_keeps_what_they_share() -> None:
    parts = [
        Resampled(value=0.2, drawn=np.array([0.1, 0.3]), by_seed={"0": 0.1, "1": 0.3}),
        Resampled(value=0.4, drawn=np.array([0.5, 0.3]), by_seed={"1": 0.4}),
    ]
    both = mean(parts)
    assert both.value == pytest.approx(0.3) and both.drawn.tolist() == pytest.approx([0.3, 0.3])
    assert both.by_seed == pytest.approx({"1": 0.35})


def test_holm_by_hand() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_bonferronis_p(values: list[float]) -> None:
    plain = {str(place): value for place, value in enumerate(values)}
    corrected = holm(plain)
    assert all(plain[name] <= corrected[name] <= min(1.0, len(values) * plain[name]) + 1e-12 for name in plain)
    ordered = sorted(plain, key=lambda name: plain[name])
    assert all(corrected[one] <= corrected[two] for one, two in itertools.pairwise(ordered))


def test_prediction_covers_one_more_value_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    draws = rng.normal(size=(2000, 6))
    inside = [new in interval for *known, new in draws if (interval := prediction(known)) is not None]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert prediction([0.3]) is None
    two = prediction([0.0, 1.0])
    assert two is not None and two.high - 0.5 == pytest.approx(12.706 * np.sqrt(0.5) * np.sqrt(1.5), rel=1e-3)
    narrow = prediction([0.1, 0.1, 0.1])
    assert narrow is not None and 0.1 in narrow and 0.11 not in narrow
