"""The stage in which the student chooses (steps 2 and 4 of the method).

In: versions, the likelihoods that the selector needs, and in the response phase the decisions of the instruction phase.
Out: `decisions.parquet`, exactly one line a row, with both values, the margin and the reason. Of several challengers
(the teacher's samples) it tells of the one that was preferred most.
"""

from collections import Counter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from srecycle.config import component
from srecycle.data import Source
from srecycle.reflection import Reflect
from srecycle.reflection.versions import version_table
from srecycle.rows import DECISION_SCHEMA, OK, Phase
from srecycle.selector.base import Choice, Matrix, Selector, missing
from srecycle.selector.grid import VersionGrid, version_grid
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Likelihoods


@component
class Select(Stage):
    """One decision a row. `before` holds the decisions of the phase before this one."""

    revision: ClassVar[int] = 2

    phase: Phase
    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...] = ()
    before: "Select | None" = None
    selector: Selector

    @property
    def name(self) -> str:
        """The stage's name."""
        return f"select_{self.phase}"

    def run(self, work: Work) -> Metrics:
        """Choose, and write the decisions."""
        likelihoods = [work.read(stage).table("likelihoods") for stage in self.likelihoods]
        grid = version_grid(version_table(work, self.rows, self.reflections), likelihoods)
        incumbents = self._incumbents(work, grid)
        competing = np.column_stack([incumbents, grid.challengers(self.phase, incumbents)])
        choice = self.selector.choose(grid.contest(self.phase, competing))
        table = self._decisions(grid, competing, choice)
        work.write("decisions", table)
        return _metrics(table)

    def _incumbents(self, work: Work, grid: VersionGrid) -> npt.NDArray[np.int64]:
        """Return the column of the version that stands in each row, shape [rows]."""
        if self.before is None:
            return np.zeros(len(grid.ids), dtype=np.int64)
        decisions = work.read(self.before).table("decisions")
        chosen = dict(zip(decisions["id"].to_pylist(), decisions["chosen"].to_pylist(), strict=True))
        return grid.numbers(chosen[identifier] for identifier in grid.ids)

    def _decisions(self, grid: VersionGrid, competing: npt.NDArray[np.int64], choice: Choice) -> pa.Table:
        pair, preference = _pair(competing, choice), _pair(choice.preference, choice)
        values = self._values(grid, pair)
        incumbent, challenger = np.array(grid.versions, dtype=object)[pair].T
        columns = {
            "id": grid.ids,
            "incumbent": incumbent,
            "challenger": challenger,
            "challengers": np.count_nonzero(~np.isnan(choice.preference[:, 1:]), axis=1),
            "chosen": np.where(choice.winner > 0, challenger, incumbent),
            "incumbent_value": values[:, 0],
            "challenger_value": values[:, 1],
            "margin": preference[:, 1] - preference[:, 0],
            "reason": _reasons(grid, pair, preference, choice.winner),
        }
        arrays = [pa.array(columns[f.name], type=f.type, from_pandas=True) for f in DECISION_SCHEMA]
        return pa.Table.from_arrays(arrays, schema=DECISION_SCHEMA)

    def _values(self, grid: VersionGrid, pair: npt.NDArray[np.int64]) -> Matrix:
        if self.selector.score is None:
            return np.full(pair.shape, np.nan)
        return np.take_along_axis(grid.columns[self.selector.score], pair, axis=1)


def _pair(of_versions: npt.NDArray[Any], choice: Choice) -> npt.NDArray[Any]:
    """Return what belongs to the incumbent and to its best challenger, shape [rows, 2]."""
    return np.column_stack([of_versions[:, 0], np.take_along_axis(of_versions, choice.best[:, None], axis=1)])


def _reasons(
    grid: VersionGrid, pair: npt.NDArray[np.int64], preference: Matrix, winners: npt.NDArray[np.int64]
) -> list[str]:
    """Say in a word why each row was decided as it was."""
    status = np.take_along_axis(grid.status, pair, axis=1)
    scored = np.take_along_axis(grid.score_status, pair, axis=1)
    reasons = []
    for row, winner in enumerate(winners):
        incumbent, challenger = preference[row]
        if status[row, 1] != OK:
            reasons.append(f"challenger_{status[row, 1]}")
        elif np.isnan(challenger):
            reasons.append(f"challenger_{missing(scored[row, 1])}")
        elif np.isnan(incumbent):
            reasons.append(f"incumbent_{missing(scored[row, 0])}")
        elif incumbent == challenger:
            reasons.append("tie")
        else:
            reasons.append("challenger_won" if winner else "incumbent_won")
    return reasons


def _metrics(decisions: pa.Table) -> Metrics:
    chosen, challenger = decisions["chosen"].to_pylist(), decisions["challenger"].to_pylist()
    taken = sum(one == other for one, other in zip(chosen, challenger, strict=True))
    metrics: Metrics = {"rows": len(decisions), "taken": taken, "acceptance": taken / len(decisions)}
    for name in ("incumbent_value", "challenger_value", "margin"):
        values = decisions[name].drop_null().to_numpy()
        if len(values):
            # Quantiles, not means: one response that its student can't make sense of has a ratio in the thousands.
            low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
            metrics |= {f"{name}/p10": float(low), f"{name}/median": float(middle), f"{name}/p90": float(high)}
    counts = Counter(decisions["reason"].to_pylist())
    return metrics | {f"reason/{reason}": count for reason, count in sorted(counts.items())}
