"""Versions and scores as whole columns: matrices of shape [rows, 4], one column a version, in the order of VERSIONS."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.rows import OK, VERSIONS, Phase
from srecycle.scorer import LIKELIHOODS, scores
from srecycle.selector.base import Contest, Matrix


@dataclass(frozen=True, kw_only=True)
class VersionGrid:
    """All versions of all rows.

    `ids` has shape [rows]; `status` (why a version is unusable, or "ok"), `line` (its line in the version table, -1
    where there is none), `score_status` (why it has no scores) and every score have shape [rows, 4].
    """

    ids: npt.NDArray[Any]
    line: npt.NDArray[np.int64]
    status: npt.NDArray[Any]
    score_status: npt.NDArray[Any]
    columns: Mapping[str, Matrix]

    def contest(self, phase: Phase, competing: npt.NDArray[np.int64]) -> Contest:
        """Return the contest of these versions: `competing` holds version numbers, shape [rows, versions]."""
        return Contest(
            phase=phase,
            ids=self.ids,
            usable=np.take_along_axis(self.status, competing, axis=1) == OK,
            columns={name: np.take_along_axis(values, competing, axis=1) for name, values in self.columns.items()},
        )


def version_grid(versions: pa.Table, likelihoods: Iterable[pa.Table]) -> VersionGrid:
    """Lay out a version table and the likelihoods of its lines, joined by (row id, version)."""
    ids = versions["id"].unique()
    shape = (len(ids), len(VERSIONS))
    places = _places(versions, ids)
    line = np.full(shape, -1, dtype=np.int64)
    line[places] = np.arange(len(versions))
    status = np.full(shape, "absent", dtype=object)
    status[places] = versions["status"].to_numpy(zero_copy_only=False)
    score_status = np.full(shape, "unscored", dtype=object)
    losses = {name: np.full(shape, np.nan) for name in LIKELIHOODS}
    for table in likelihoods:
        scored = _places(table, ids)
        score_status[scored] = table["status"].to_numpy(zero_copy_only=False)
        for name in LIKELIHOODS:
            losses[name][scored] = table[name].to_numpy(zero_copy_only=False)
    return VersionGrid(
        ids=np.asarray(ids.to_pylist(), dtype=object),
        line=line,
        status=status,
        score_status=score_status,
        columns=scores(losses),
    )


def _places(table: pa.Table, ids: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the (row, version) place of each line of a table."""
    rows = pc.index_in(table["id"], value_set=ids).to_numpy(zero_copy_only=False)
    columns = pc.index_in(table["version"], value_set=pa.array(VERSIONS)).to_numpy(zero_copy_only=False)
    return rows.astype(np.int64), columns.astype(np.int64)
