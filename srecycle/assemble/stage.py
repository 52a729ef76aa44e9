"""The stage that makes the training set (step 5 of the method).

In: versions, the last decisions, and what the keep filters need. Out: `training.parquet`, every row with the version
that was taken, its scores, whether it is kept, the reason where it is not, and what would flip that; then the rows that
are mixed in.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.assemble.base import Assembly
from srecycle.config import component
from srecycle.data import Source
from srecycle.embedder import Embeddings
from srecycle.keep import Chosen, Keep, Kept, filtered
from srecycle.keep.base import EMBEDDING, ORIGINAL
from srecycle.progress import say
from srecycle.reflection import Reflect
from srecycle.reflection.versions import VERSION_SCHEMA, Versions
from srecycle.rows import KINDS, TRAINING_SCHEMA, counted, kind_of, mixed_id
from srecycle.selector import Select
from srecycle.selector.grid import EMBEDDED, MEASURED, VersionGrid, version_grid
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Likelihoods


@component
class Assemble(Stage):
    """Takes what was decided last, applies the keep filters, and mixes in."""

    revision: ClassVar[int] = 2

    rows: Source
    reflections: tuple[Reflect, ...] = ()
    likelihoods: tuple[Likelihoods, ...] = ()
    embeddings: tuple[Embeddings, ...] = ()
    decisions: Select
    keep: dict[str, Keep]
    assembly: Assembly
    extra: Source | None = None

    @property
    def name(self) -> str:
        """The stage's name."""
        return "assemble"

    def run(self, work: Work) -> Metrics:
        """Join, filter, mix, and write the training set."""
        needed = {name for one in self.keep.values() for name in one.needed}
        texts = {name.removeprefix(ORIGINAL) for name in needed}
        embedded = (*EMBEDDED, EMBEDDING) if EMBEDDING in needed else EMBEDDED
        embeddings = [work.read(stage).table("embeddings", embedded) for stage in self.embeddings]
        grid = version_grid(
            Versions(work, self.rows, self.reflections, {*texts, "source"}).table(),
            [work.read(stage).table("likelihoods", MEASURED) for stage in self.likelihoods],
            embeddings,
        )
        decisions = work.read(self.decisions).table("decisions", ["id", "chosen"])
        taken = dict(zip(decisions["id"].to_pylist(), decisions["chosen"].to_pylist(), strict=True))
        number = grid.numbers(taken[identifier] for identifier in grid.ids)
        chosen = chosen_of(grid, number, needed, embeddings)
        kept = filtered(self.keep, chosen)
        mixed = self._mixed(work, chosen, kept.reason == "")
        lines = grid.line[np.arange(len(number)), number]
        work.write("training", itertools.chain(self._training(work, lines, chosen, kept), mixed.values()))
        counts = {f"mixed/{name}": len(part) for name, part in mixed.items()}
        sources = grid.table["source"].take(pa.array(lines[kept.reason == ""]))
        return _metrics(chosen, kept.reason) | self._found(chosen) | _sources(sources) | counts

    def _training(self, work: Work, lines: npt.NDArray[np.int64], chosen: Chosen, kept: Kept) -> Iterator[pa.Table]:
        """Yield the rows with the versions that were taken, which stand on these lines of all versions."""
        before = 0
        for rows, versions in Versions(work, self.rows, self.reflections).parts():
            table = versions.take(pa.array(lines[rows] - before))
            before += len(versions)
            read = table.select(["response", "critique"]).to_pylist()
            values: dict[str, Any] = {
                "response": [self.assembly.response(line) for line in read],
                **{name: chosen.columns[name][rows] for name in ("ifd", "r_ifd", "loss_y_given_x")},
                "kept": kept.reason[rows] == "",
                "reason": kept.reason[rows],
                "flip": kept.flip[rows],
                "flip_of": kept.flip_of[rows],
            }
            columns = [
                pa.array(values[one.name], type=one.type, from_pandas=True) if one.name in values else table[one.name]
                for one in TRAINING_SCHEMA
            ]
            yield pa.table(columns, schema=TRAINING_SCHEMA)

    def _found(self, chosen: Chosen) -> Metrics:
        """Count what filters see in rows that they let stand, too."""
        return {
            f"found/{name}/{what}": int(rows.sum())
            for name, one in sorted(self.keep.items())
            for what, rows in sorted(one.findings(chosen).items())
        }

    def _mixed(self, work: Work, chosen: Chosen, kept: npt.NDArray[np.bool_]) -> dict[str, pa.Table]:
        """Return what is mixed in, by where it comes from."""
        count, mixed = int(kept.sum()), {}
        if self.assembly.originals:
            rows = work.read(self.rows).table("rows")
            trained = set(chosen.id[kept & (chosen.version == "original")])
            free = rows.filter(pa.array([identifier not in trained for identifier in rows["id"].to_pylist()]))
            mixed["original"] = self._drawn("original", free, self.assembly.originals, count)
        if self.extra is not None:
            rows = work.read(self.extra).table("rows")
            mixed["extra"] = self._drawn("extra", rows, self.assembly.extra_share, count)
        return mixed

    def _drawn(self, kind: Literal["original", "extra"], rows: pa.Table, share: float | None, kept: int) -> pa.Table:
        """Draw rows by a hash of their ids, so that a larger share holds the smaller one, and keep their order."""
        ids = rows["id"].to_pylist()
        wanted = len(ids) if share is None else round(share * kept)
        count = min(len(ids), wanted)
        if count < wanted:
            say(f"  warning: {wanted} {kind} rows were to be mixed in for {kept} kept ones, and there are only {count}")
        draw = sorted(range(len(ids)), key=lambda place: _hash(f"{self.assembly.seed}|{ids[place]}"))
        rows = rows.take(pa.array(sorted(draw[:count]), type=pa.int64()))
        made = {
            "id": [mixed_id(kind, identifier) for identifier in rows["id"].to_pylist()],
            "version": ["original"] * count,
            "kept": [True] * count,
            "reason": [""] * count,
            "flip_of": [""] * count,
        }
        columns = [
            made[one.name]
            if one.name in made
            else rows[one.name]
            if one.name in rows.column_names
            else pa.nulls(count, one.type)
            for one in TRAINING_SCHEMA
        ]
        return pa.table(columns, schema=TRAINING_SCHEMA)


def chosen_of(grid: VersionGrid, number: npt.NDArray[np.int64], needed: set[str], embeddings: list[pa.Table]) -> Chosen:
    """Return what was taken (a column of the grid a row, shape [rows]) with all scores, and with the texts needed."""

    def of_taken(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        column: npt.NDArray[Any] = np.take_along_axis(values, number[:, None], axis=1)[:, 0]
        return column

    texts = {}
    for name in needed:
        column = name.removeprefix(ORIGINAL)
        if column in VERSION_SCHEMA.names:
            places = np.zeros_like(number) if name.startswith(ORIGINAL) else number
            texts[name] = grid.texts(column, places[:, None])[:, 0]
    vectors = {EMBEDDING: _vectors(grid, number, embeddings)} if EMBEDDING in needed else {}
    return Chosen(
        id=grid.ids,
        version=np.array(grid.versions, dtype=object)[number],
        score_status=of_taken(grid.score_status),
        columns={name: of_taken(values) for name, values in grid.columns.items()},
        texts=texts,
        vectors=vectors,
    )


def _vectors(grid: VersionGrid, number: npt.NDArray[np.int64], embeddings: list[pa.Table]) -> npt.NDArray[np.float32]:
    """Return the embedding of what was taken, shape [rows, dimensions]; NaN where there is none."""
    table = pa.concat_tables(embeddings).select(["id", "version", EMBEDDING])
    table = table.filter(pc.is_valid(table[EMBEDDING])).combine_chunks()
    dimensions = table.schema.field(EMBEDDING).type.list_size
    rows = pc.index_in(table["id"], value_set=pa.array(grid.ids)).to_numpy(zero_copy_only=False)
    taken = np.array(grid.versions, dtype=object)[number][rows] == table["version"].to_numpy(zero_copy_only=False)
    known = pc.list_flatten(table[EMBEDDING]).to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    vectors = np.full((len(grid.ids), dimensions), np.nan, dtype=np.float32)
    vectors[rows[taken]] = known[taken]
    return vectors


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _sources(column: pa.ChunkedArray) -> Metrics:
    """Count the kept rows of each source that the data names."""
    return {f"kept/source/{name}": count for name, count in counted(column).items() if name}


def _metrics(chosen: Chosen, reason: npt.NDArray[Any]) -> Metrics:
    kept = reason == ""
    metrics: Metrics = {"rows": len(kept), "kept": int(kept.sum()), "kept_share": float(kept.mean())}
    for name in ("ifd", "r_ifd"):
        scored = chosen.columns[name]
        values = scored[kept & ~np.isnan(scored)]
        if len(values):
            metrics[f"kept/{name}/median"] = float(np.median(values))
    taken = Counter(map(kind_of, chosen.version))
    counted = Counter(map(kind_of, chosen.version[kept]))
    metrics |= {f"taken/{kind}": taken[kind] for kind in KINDS}
    metrics |= {f"kept/{kind}": counted[kind] for kind in KINDS}
    return metrics | {f"refused/{why}": count for why, count in sorted(Counter(reason[~kept].tolist()).items())}
