"""Differences between arms with their uncertainty: over seeds, base students, and test items.

In: for every run its right and wrong items, a matrix of splits by items. Runs of one seed were asked the same items,
and share data and training seeds, so arms are compared pair by pair. A resample draws seeds with replacement, base
students with replacement (they are crossed with seeds: the pigeonhole bootstrap, Owen 2007, arXiv:0712.1111), and
inside every drawn seed items with replacement, the same ones for all arms and settings. Out: a mean of the difference,
its standard error over the resamples, an interval and a p-value.

A bootstrap of so few seeds is too narrow by sqrt((n - 1) / n), and knows no t distribution (Hesterberg 2015,
arXiv:1411.5279): the standard error is widened by that factor, and interval and p-value are Student's with n - 1
degrees of freedom. Holm's correction (1979) takes the p-values of a family of contrasts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

RESAMPLES = 2000
COVERED = 0.95


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What one run answered in its test: `right` has shape [splits, items], 1 where an item was answered right.

    `column` names what is compared (an arm in a setting); `seed` draws its items, and `base` is its base student.
    """

    column: str
    seed: str
    base: str
    right: Values


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The means of every column: `value` as measured, `drawn` [resamples] in resamples, `by_seed` of each seed."""

    value: float
    drawn: Values
    by_seed: Mapping[str, float]

    def less(self, other: "Resampled") -> "Resampled":
        """Return the difference from another column's, on the seeds that both have."""
        shared = [seed for seed in self.by_seed if seed in other.by_seed]
        return Resampled(
            value=self.value - other.value,
            drawn=self.drawn - other.drawn,
            by_seed={seed: self.by_seed[seed] - other.by_seed[seed] for seed in shared},
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its interval (95%) and the p-value of its being 0; None where one seed tells of no spread of seeds.

    `seeds` is how many there were, `positive` the share of seeds in which the value is above 0.
    """

    value: float
    stderr: float
    low: float
    high: float
    p: float
    seeds: int
    positive: float


def mean(parts: Sequence[Resampled]) -> Resampled:
    """Return the plain mean of several columns, on the seeds that all have."""
    shared = [seed for seed in parts[0].by_seed if all(seed in one.by_seed for one in parts)]
    return Resampled(
        value=float(np.mean([one.value for one in parts])),
        drawn=np.mean([one.drawn for one in parts], axis=0),
        by_seed={seed: float(np.mean([one.by_seed[seed] for one in parts])) for seed in shared},
    )


def resampled(
    runs: Sequence[Answered], splits: Sequence[int], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Resampled]:
    """Return every column's mean over these splits (each weighing as much), with its resamples.

    A column that lacks a seed or a base is the mean of those that it has.
    """
    names = list(dict.fromkeys(one.column for one in runs))
    seeds = sorted({one.seed for one in runs})
    bases = sorted({one.base for one in runs})
    rng = np.random.default_rng(seed)
    drawn_seeds = rng.integers(0, len(seeds), (resamples, len(seeds)))
    drawn_bases = rng.integers(0, len(bases), (resamples, len(bases)))
    # [resamples, drawn seeds, bases, columns]: NaN where a run is missing.
    found = np.full((resamples, len(seeds), len(bases), len(names)), np.nan)
    measured = np.full((len(seeds), len(bases), len(names)), np.nan)
    for place, name in enumerate(seeds):
        own = [one for one in runs if one.seed == name]
        table = np.stack([one.right[list(splits)] for one in own], axis=-1)  # [splits, items, runs]
        where = ([bases.index(one.base) for one in own], [names.index(one.column) for one in own])
        measured[place][where] = table.mean(axis=(0, 1))
        chosen = np.argwhere(drawn_seeds == place)
        values = _item_means(table, len(chosen), rng)
        for (draw, position), line in zip(chosen, values, strict=True):
            found[draw, position][where] = line
    by_base = np.take_along_axis(_mean(found, 1), drawn_bases[:, :, None], axis=1)
    drawn, whole = _mean(by_base, 1), _mean(measured, 1)
    return {
        name: Resampled(
            value=float(_mean(_mean(measured[:, :, number], 0), 0)),
            drawn=drawn[:, number],
            by_seed={
                one: float(whole[place, number])
                for place, one in enumerate(seeds)
                if not math.isnan(whole[place, number])
            },
        )
        for number, name in enumerate(names)
    }


def _item_means(table: Values, draws: int, rng: np.random.Generator) -> Values:
    """Return the runs' means over so many resamples of the items of each split, shape [draws, runs]."""
    splits, items, runs = table.shape
    total = np.zeros((draws, runs))
    for split in range(splits):
        places = rng.integers(0, items, (draws, items)) + np.arange(draws)[:, None] * items
        counts = np.bincount(places.ravel(), minlength=draws * items).reshape(draws, items)
        total += counts @ table[split] / items
    means: Values = total / splits
    return means


def _mean(values: Values, axis: int) -> Values:
    """Return the mean of what is known along an axis; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    result: Values = np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
    return result


def estimate(one: Resampled) -> Estimate:
    """Return the mean with its interval and p-value. Of a single seed they tell of its items alone."""
    from scipy import stats

    seeds = len(one.by_seed)
    known = one.drawn[~np.isnan(one.drawn)]
    error = float(known.std())
    if seeds > 1:
        error *= math.sqrt(seeds / (seeds - 1))
    law = stats.t(seeds - 1) if seeds > 1 else stats.norm()
    reach = float(law.ppf((1 + COVERED) / 2)) * error
    p = float(2 * law.sf(abs(one.value) / error)) if error else float(one.value == 0)
    return Estimate(
        value=one.value,
        stderr=error,
        low=one.value - reach,
        high=one.value + reach,
        p=p,
        seeds=seeds,
        positive=float(np.mean([value > 0 for value in one.by_seed.values()])) if seeds else math.nan,
    )


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for how many there are: the family-wise error stays below the level (Holm 1979)."""
    corrected: dict[str, float] = {}
    highest = 0.0
    for place, (name, value) in enumerate(sorted(p.items(), key=lambda pair: pair[1])):
        highest = max(highest, min(1.0, (len(p) - place) * value))
        corrected[name] = highest
    return {name: corrected[name] for name in p}


@dataclass(frozen=True, kw_only=True)
class Interval:
    """From `low` to `high`."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Say whether a value lies inside, ends included."""
        return self.low <= value <= self.high


def prediction(values: Sequence[float]) -> Interval | None:
    """Return where one more value of the same normal distribution lies, in 95 of 100 cases; None of less than two."""
    from scipy import stats

    if len(values) < 2:
        return None
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / len(values))
    reach = float(stats.t(len(values) - 1).ppf((1 + COVERED) / 2)) * spread
    middle = float(np.mean(values))
    return Interval(low=middle - reach, high=middle + reach)
