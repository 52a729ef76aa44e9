"""Paired bootstrap between runs, on the items that they were all asked.

Items are drawn with replacement within each task, the same ones for every run, and a measure is the mean of its tasks.
Pairing takes out what makes items easy or hard for everyone: the interval of a difference is narrower than the runs'
own intervals suggest (Koehn 2004, Statistical significance tests for machine translation evaluation). Intervals are
percentiles of the resamples.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srecycle.report.cells import ABSENT, Cell, Grid, figure, word
from srecycle.report.comparison import Entry, lower_is_better, spoken
from srecycle.report.items import Items, Measure, items
from srecycle.report.tables import Values

RESAMPLES = 2000
COVERED = 0.95
_BLOCK = 200
_MOST_GRIDS, _MOST_SQUARE = 6, 10

Tasks = Mapping[str, Items]


@dataclass(frozen=True, kw_only=True)
class Means:
    """A run's mean over some items, and that of every resample of them."""

    value: float
    resampled: Values

    @property
    def interval(self) -> tuple[float, float]:
        """Return what the middle of the resamples covers."""
        low, high = np.quantile(self.resampled, [(1 - COVERED) / 2, (1 + COVERED) / 2])
        return float(low), float(high)

    def less(self, other: "Means") -> "Means":
        """Return the difference from another run's mean over the same items."""
        return Means(value=self.value - other.value, resampled=self.resampled - other.resampled)


def means(runs: Sequence[Tasks], resamples: int = RESAMPLES) -> tuple[list[Means] | None, int]:
    """Return each run's mean over the items that all of them have, and how many those are; None where there are none.

    The same items are drawn for all runs, and the same ones whenever these items are asked for.
    """
    shared = {
        task: names
        for task in sorted(set.intersection(*(set(one) for one in runs)))
        if (names := sorted(set.intersection(*(set(one[task]) for one in runs))))
    }
    if not shared:
        return None, 0
    value, drawn = np.zeros(len(runs)), np.zeros((resamples, len(runs)))
    for task, names in shared.items():
        table = np.array([[one[task][name] for one in runs] for name in names])
        value += table.mean(axis=0) / len(shared)
        drawn += _resampled(table, zlib.crc32(task.encode("utf-8", "surrogatepass")), resamples) / len(shared)
    found = [Means(value=float(value[place]), resampled=drawn[:, place]) for place in range(len(runs))]
    return found, sum(map(len, shared.values()))


def _resampled(table: Values, seed: int, resamples: int) -> Values:
    """Return the columns' means over resamples of the rows: counts of draws times values, a block at a time."""
    rng, rows = np.random.default_rng(seed), len(table)
    blocks = []
    for start in range(0, resamples, _BLOCK):
        size = min(_BLOCK, resamples - start)
        places = rng.integers(0, rows, (size, rows)) + np.arange(size)[:, None] * rows
        blocks.append(np.bincount(places.ravel(), minlength=size * rows).reshape(size, rows) @ table / rows)
    return np.concatenate(blocks)


def paired_grids(found: Sequence[Entry]) -> list[Grid]:
    """Return a table a measure that at least two runs have item by item, and one of all pairs where they are few."""
    known = {entry.label: items(entry.run) for entry in found if not entry.failed}
    measures = sorted({measure for one in known.values() for measure in one})
    grids: list[Grid] = []
    for measure in measures:
        runs = {label: one[measure] for label, one in known.items() if measure in one}
        if len(runs) > 1 and len(grids) < _MOST_GRIDS:
            grids += [grid for grid in (_against_first(measure, runs), _square(measure, runs)) if grid]
    return grids


def _against_first(measure: Measure, runs: Mapping[str, Tasks]) -> Grid:
    reference = next(iter(runs))
    rows = [[word(label), *_own(one), *_difference(measure, one, runs[reference])] for label, one in runs.items()]
    rows[0][4:] = [word("reference"), ABSENT, ABSENT]
    return Grid(
        name=f"paired-{measure.name}",
        title=f"{spoken(measure.name)}, against {reference}",
        heads=["run", "mean", "95% interval", "items", "difference", "95% interval of it", "better in"],
        rows=rows,
        note=f"Paired bootstrap, {RESAMPLES:,} resamples of the items within each task; tasks weigh alike. Differences "
        "are from the first run, on the items that both were asked; bold where the interval is without 0.",
    )


def _own(one: Tasks) -> list[Cell]:
    found, count = means([one])
    if found is None:
        return [ABSENT, ABSENT, ABSENT]
    return [figure(found[0].value), _interval(found[0]), Cell(text=f"{count:,}", value=count)]


def _difference(measure: Measure, one: Tasks, other: Tasks) -> list[Cell]:
    both, _ = means([one, other])
    if both is None:
        return [word("no shared items"), ABSENT, ABSENT]
    change = both[0].less(both[1])
    sign = -1 if lower_is_better(measure.metric) else 1
    better = float(((sign * change.resampled > 0) + 0.5 * (change.resampled == 0)).mean())
    shown = figure(change.value, signed=True, strong=_clear(change))
    return [shown, _interval(change, signed=True), Cell(text=f"{better:.1%}", value=better)]


def _clear(change: Means) -> bool:
    low, high = change.interval
    return low > 0 or high < 0


def _interval(one: Means, *, signed: bool = False) -> Cell:
    low, high = (f"{value:+.3f}" if signed else f"{value:.3f}" for value in one.interval)
    return Cell(text=f"{low} to {high}", ends=one.interval)


def _square(measure: Measure, runs: Mapping[str, Tasks]) -> Grid | None:
    """Return every run's difference from every other one, where they are few enough to read and share items."""
    if not 2 < len(runs) <= _MOST_SQUARE:
        return None
    found, count = means(list(runs.values()))
    if found is None:
        return None
    rows = [
        [word(label), *(ABSENT if one is other else _pair(one.less(other)) for other in found)]
        for label, one in zip(runs, found, strict=True)
    ]
    return Grid(
        name=f"pairs-{measure.name}",
        title=f"{spoken(measure.name)}, every pair",
        heads=["row less column", *runs],
        rows=rows,
        note=f"On the {count:,} items that all of these runs share; bold where the 95% interval is without 0 (not "
        "corrected for how many pairs there are).",
    )


def _pair(change: Means) -> Cell:
    low, high = change.interval
    about = f"{low:+.3f} to {high:+.3f}"
    return Cell(text=f"{change.value:+.3f}", value=change.value, strong=_clear(change), about=about)
