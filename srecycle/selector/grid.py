"""Versions and scores as whole columns: matrices of shape [rows, versions], in the versions' order.

With so many samples of each reflection there are 1 + 3 * samples columns, also where some have no line in any row.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.rows import OK, Phase, Version, challenger, sample_of, versions_of
from srecycle.scorer import LIKELIHOODS, scores
from srecycle.selector.base import COHERENCE, TEXTS, Contest, Matrix, Texts

MEASURED: Final = ("id", "version", "status", *LIKELIHOODS)
"""The columns of likelihoods that a grid is made of."""

EMBEDDED: Final = ("id", "version", "status", COHERENCE)
"""The columns of embeddings that a grid is made of."""


@dataclass(frozen=True, kw_only=True)
class VersionGrid:
    """All versions of all rows.

    `versions` names the columns and `ids` the rows; `status` (why a version is unusable, or "ok"), `line` (its line in
    `table`, the version table; -1 where there is none), `score_status` (why it has no scores) and every score have the
    shape [rows, versions].
    """

    table: pa.Table
    samples: int
    versions: tuple[Version, ...]
    ids: npt.NDArray[Any]
    line: npt.NDArray[np.int64]
    status: npt.NDArray[Any]
    score_status: npt.NDArray[Any]
    columns: Mapping[str, Matrix]

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Which versions there are to choose from, shape [rows, versions]."""
        usable: npt.NDArray[np.bool_] = self.status == OK
        return usable

    def numbers(self, versions: Iterable[Version]) -> npt.NDArray[np.int64]:
        """Return the column of each version."""
        column = {version: number for number, version in enumerate(self.versions)}
        return np.array([column[version] for version in versions], dtype=np.int64)

    def challengers(self, phase: Phase, incumbents: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the columns of the versions that stand against the incumbents, shape [rows, samples]."""
        standing = np.flatnonzero(np.bincount(incumbents, minlength=len(self.versions)))
        places = np.zeros((len(self.versions), self.samples), dtype=np.int64)
        for one in standing:
            names = [challenger(phase, self.versions[one], sample) for sample in range(self.samples)]
            places[one] = self.numbers(names)
        found: npt.NDArray[np.int64] = places[incumbents]
        return found

    def texts(self, name: str, competing: npt.NDArray[np.int64]) -> Texts:
        """Return a column of the version table at these places, in their shape; "" where there is no version."""
        lines = np.take_along_axis(self.line, competing, axis=1)
        values = np.empty(len(self.table) + 1, dtype=object)
        values[:-1], values[-1] = self.table[name].to_pylist(), ""
        found: Texts = values[lines]
        return found

    def contest(self, phase: Phase, competing: npt.NDArray[np.int64], needs: Collection[str]) -> Contest:
        """Return the contest of these versions: `competing` holds their columns, shape [rows, versions].

        It has the columns that are needed, and no others: what a selector reads is what it declares.
        """
        return Contest(
            phase=phase,
            ids=self.ids,
            usable=np.take_along_axis(self.usable, competing, axis=1),
            columns={
                name: np.take_along_axis(self.columns[name], competing, axis=1) for name in needs if name not in TEXTS
            },
            texts={name: self.texts(name, competing) for name in needs if name in TEXTS},
        )


def version_grid(
    versions: pa.Table, likelihoods: Iterable[pa.Table] = (), embeddings: Iterable[pa.Table] = ()
) -> VersionGrid:
    """Lay out a version table, and what was measured of its lines, joined by (row id, version)."""
    ids = versions["id"].unique()
    samples = 1 + max(map(sample_of, versions["version"].unique().to_pylist()), default=0)
    names = versions_of(samples)
    shape = (len(ids), len(names))
    places = _places(versions, ids, names)
    line = np.full(shape, -1, dtype=np.int64)
    line[places] = np.arange(len(versions))
    assert np.count_nonzero(line >= 0) == len(versions), "a row has two versions of the same name"
    status = np.full(shape, "absent", dtype=object)
    status[places] = _words(versions["status"])
    score_status = np.full(shape, "unscored", dtype=object)
    losses = {name: np.full(shape, np.nan) for name in LIKELIHOODS}
    for table in likelihoods:
        scored = _places(table, ids, names)
        score_status[scored] = _words(table["status"])
        for name in LIKELIHOODS:
            losses[name][scored] = table[name].to_numpy(zero_copy_only=False)
    columns = {**losses, **scores(losses)}
    for table in embeddings:
        embedded = _places(table, ids, names)
        coherence = columns.setdefault(COHERENCE, np.full(shape, np.nan))
        coherence[embedded] = table[COHERENCE].to_numpy(zero_copy_only=False)
        why, known = _words(table["status"]), score_status[embedded]
        score_status[embedded] = np.where((known == "unscored") | (known == OK), why, known)
    return VersionGrid(
        table=versions,
        samples=samples,
        versions=names,
        ids=np.asarray(ids.to_pylist(), dtype=object),
        line=line,
        status=status,
        score_status=score_status,
        columns=columns,
    )


def _places(
    table: pa.Table, ids: pa.Array, versions: Sequence[Version]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the (row, version) place of each line of a table."""
    rows = pc.index_in(table["id"], value_set=ids).to_numpy(zero_copy_only=False)
    columns = pc.index_in(table["version"], value_set=pa.array(versions)).to_numpy(zero_copy_only=False)
    return rows.astype(np.int64), columns.astype(np.int64)


def _words(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of few words, each of which is in memory once."""
    words = column.unique()
    places = pc.index_in(column, value_set=words).to_numpy(zero_copy_only=False).astype(np.int64)
    found: npt.NDArray[Any] = np.array(words.to_pylist(), dtype=object)[places]
    return found
