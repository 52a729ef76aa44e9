"""The stage in which the student chooses (steps 2 and 4 of the method).

In: versions, what was measured of them and the selector needs, and in the response phase the decisions of the
instruction phase. Out: `decisions.parquet`, exactly one line a row, with both values, the margin, the reason, and what
would flip it. Of several challengers (the teacher's samples) it tells of the one that was preferred most.
"""

from collections import Counter
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from srecycle.config import component
from srecycle.data import Source
from srecycle.embedder import Embeddings
from srecycle.reflection import Reflect
from srecycle.reflection.versions import Versions
from srecycle.rows import DECISION_SCHEMA, Phase
from srecycle.selector.base import Selector
from srecycle.selector.decide import Decisions, decide
from srecycle.selector.grid import EMBEDDED, MEASURED, VersionGrid, version_grid
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Likelihoods


@component
class Select(Stage):
    """One decision a row. `before` holds the decisions of the phase before this one."""

    revision: ClassVar[int] = 3

    phase: Phase
    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...] = ()
    embeddings: tuple[Embeddings, ...] = ()
    before: "Select | None" = None
    selector: Selector

    @property
    def name(self) -> str:
        """The stage's name."""
        return f"select_{self.phase}"

    def run(self, work: Work) -> Metrics:
        """Choose, and write the decisions."""
        grid = version_grid(
            Versions(work, self.rows, self.reflections, self.selector.needed).table(),
            [work.read(stage).table("likelihoods", MEASURED) for stage in self.likelihoods],
            [work.read(stage).table("embeddings", EMBEDDED) for stage in self.embeddings],
        )
        table = _table(decide(grid, self.phase, self.selector, self._incumbents(work, grid)))
        work.write("decisions", table)
        return _metrics(table)

    def _incumbents(self, work: Work, grid: VersionGrid) -> npt.NDArray[np.int64]:
        """Return the column of the version that stands in each row, shape [rows]."""
        if self.before is None:
            return np.zeros(len(grid.ids), dtype=np.int64)
        decisions = work.read(self.before).table("decisions", ["id", "chosen"])
        chosen = dict(zip(decisions["id"].to_pylist(), decisions["chosen"].to_pylist(), strict=True))
        return grid.numbers(chosen[identifier] for identifier in grid.ids)


def _table(decided: Decisions) -> pa.Table:
    names, values = np.array(decided.grid.versions, dtype=object), decided.values
    ahead = decided.preference[:, 1] - decided.preference[:, 0]  # infinite where the challenger was vetoed
    columns = {
        "id": decided.grid.ids,
        "incumbent": names[decided.pair[:, 0]],
        "challenger": names[decided.pair[:, 1]],
        "challengers": decided.challengers,
        "chosen": names[decided.chosen],
        "incumbent_value": values[:, 0],
        "challenger_value": values[:, 1],
        "margin": np.where(np.isfinite(ahead), ahead, np.nan),
        "flip": decided.flip,
        "reason": decided.reasons(),
    }
    arrays = [pa.array(columns[one.name], type=one.type, from_pandas=True) for one in DECISION_SCHEMA]
    return pa.Table.from_arrays(arrays, schema=DECISION_SCHEMA)


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
