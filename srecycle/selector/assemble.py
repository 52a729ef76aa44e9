"""The stage that makes the training set (step 5 of the method).

In: versions, both phases' decisions, and the likelihoods that the keep filters need. Out: `training.parquet`, every row
with the version that was taken, its scores, whether it is kept, and the reason where it is not.
"""

from collections import Counter
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from srecycle.config import component
from srecycle.data import Source
from srecycle.reflection import Reflect
from srecycle.reflection.versions import version_table
from srecycle.rows import KINDS, TRAINING_SCHEMA, kind_of
from srecycle.selector.grid import version_grid
from srecycle.selector.keep import Chosen, Keep
from srecycle.selector.select import Select
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Likelihoods


@component
class Assemble(Stage):
    """Takes what was decided last, and applies the keep filters in the order of their names."""

    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...] = ()
    decisions: Select
    keep: dict[str, Keep]

    @property
    def name(self) -> str:
        """The stage's name."""
        return "assemble"

    def run(self, work: Work) -> Metrics:
        """Join, filter, and write the training set."""
        versions = version_table(work, self.rows, self.reflections)
        grid = version_grid(versions, [work.read(stage).table("likelihoods") for stage in self.likelihoods])
        decisions = work.read(self.decisions).table("decisions")
        taken = dict(zip(decisions["id"].to_pylist(), decisions["chosen"].to_pylist(), strict=True))
        names = np.array([taken[identifier] for identifier in grid.ids], dtype=object)
        number = grid.numbers(names)[:, None]

        def of_taken(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            column: npt.NDArray[Any] = np.take_along_axis(values, number, axis=1)[:, 0]
            return column

        scores = {name: of_taken(values) for name, values in grid.columns.items()}
        chosen = Chosen(version=names, score_status=of_taken(grid.score_status), columns=scores)
        refusals = [self.keep[name].reasons(chosen) for name in sorted(self.keep)]
        nothing = np.full(len(names), "", dtype=object)
        reason = reduce(lambda first, second: np.where(first == "", second, first), refusals, nothing)
        table = versions.take(pa.array(of_taken(grid.line))).select(_COPIED)
        for name, values in (
            ("ifd", pa.array(scores["ifd"], from_pandas=True)),
            ("r_ifd", pa.array(scores["r_ifd"], from_pandas=True)),
            ("kept", pa.array(reason == "")),
            ("reason", pa.array(reason, type=pa.string())),
        ):
            table = table.append_column(name, values)
        work.write("training", table.select(TRAINING_SCHEMA.names).cast(TRAINING_SCHEMA).combine_chunks())
        return _metrics(names, reason, scores)


_COPIED = ["id", "position", "version", "instruction", "input", "response", "history", "label"]


def _metrics(version: npt.NDArray[Any], reason: npt.NDArray[Any], scores: dict[str, npt.NDArray[Any]]) -> Metrics:
    kept = reason == ""
    metrics: Metrics = {"rows": len(kept), "kept": int(kept.sum()), "kept_share": float(kept.mean())}
    for name in ("ifd", "r_ifd"):
        values = scores[name][kept & ~np.isnan(scores[name])]
        if len(values):
            metrics[f"kept/{name}/median"] = float(np.median(values))
    taken, counted = Counter(map(kind_of, version)), Counter(map(kind_of, version[kept]))
    metrics |= {f"taken/{kind}": taken[kind] for kind in KINDS}
    metrics |= {f"kept/{kind}": counted[kind] for kind in KINDS}
    return metrics | {f"refused/{why}": count for why, count in sorted(Counter(reason[~kept].tolist()).items())}
