"""The stage that embeds every version's instruction and response.

In: versions. Out: `embeddings.parquet`, one line a usable version, in version order: whether it could be embedded or
why not, how alike its instruction (with its input; a conversation's earlier turns are left out) and its response are,
and the instruction's vector. Identity: the embedder, the student where it is the one that embeds, and the versions'
keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from srecycle.config import component, runtime
from srecycle.data import Source
from srecycle.embedder.base import Embedder, TextEncoder, Vectors
from srecycle.engine import Engine, Mapper
from srecycle.reflection import Reflect
from srecycle.reflection.versions import Versions, VersionsByRow
from srecycle.rows import OK, counted
from srecycle.stage import Metrics, Stage, Work
from srecycle.student import Student

_READ = ("instruction", "input", "response")
Line = Mapping[str, Any]
"""A version, as `srecycle.reflection.versions` has it."""


@component
class Embeddings(Stage):
    """Embeds all usable versions of `rows` (where given) and `reflections`."""

    rows: Source | None = None
    reflections: tuple[Reflect, ...] = ()
    embedder: Embedder
    student: Student | None = None
    engine: Engine = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return "embeddings"

    def check(self) -> None:
        """Refuse to start where the engine or the embedder lacks something."""
        self.engine.check()
        if not self.engine.elsewhere:
            self.embedder.check(self.student)

    def run(self, work: Work) -> Metrics:
        """Embed all versions, a row's versions together."""
        rows = VersionsByRow(Versions(work, self.rows, self.reflections, _READ))
        embedding = Embedding(replace(self, rows=None, reflections=()))
        work.write("embeddings", self.engine.map_shards(self.name, rows, embedding, work.scratch, embedding.rate))
        work.notes |= embedding.notes
        table = work.written("embeddings", ("status", "truncated", "coherence"))
        return {
            "versions": len(table),
            "embedder": type(self.embedder).__name__,
            "model": embedding.settled["model"],
            "model_dimensions": embedding.settled["model_dimensions"],
            "dimensions": min(embedding.settled["model_dimensions"], self.embedder.dimensions),
            "truncated": pc.sum(table["truncated"]).as_py() or 0,
            **_quantiles(table["coherence"].drop_null().to_numpy()),
            **{f"status/{status}": count for status, count in counted(table["status"]).items()},
        }


class Embedding(Mapper[Embeddings, Sequence[Line], pa.Table]):
    """What a worker does: it loads the embedder, and embeds the versions of rows.

    Its settings are the stage without what that reads.
    """

    settles: ClassVar[tuple[str, ...]] = ("batch_tokens", "model", "model_dimensions")

    def load(self) -> Mapping[str, Any]:
        """Load the model. Raises UserError where it can't be loaded."""
        embedder = self.settings.embedder
        embedder.check(self.settings.student)
        self._encoder = one = embedder.load(self.settings.student)
        self._projection = embedder.projection(one.dimensions)
        budget = embedder.batch_tokens or one.batch_tokens
        return {"batch_tokens": budget, "model": one.model, "model_dimensions": one.dimensions}

    def adopt(self) -> None:
        """Batch as all workers do."""
        self._encoder.batch_tokens = self.settled["batch_tokens"]

    def __call__(self, items: Sequence[Sequence[Line]]) -> pa.Table:
        """Return the embeddings of the usable versions of rows."""
        usable = [line for lines in items for line in lines if line["status"] == OK]
        return embeddings(self._encoder, self._projection, usable)

    def name(self, item: Sequence[Line]) -> str:
        """Return the row's id."""
        return str(item[0]["id"])

    def counts(self) -> dict[str, Any]:
        """Return how much was read, and what batches came to."""
        one = self._encoder
        return {"tokens": one.read_tokens, "batch_tokens": one.batch_tokens, "splits": one.splits}

    def close(self) -> None:
        """End after the batch that is being computed."""
        self._encoder.stopped = True

    def rate(self) -> str:
        """Say how fast it goes."""
        return f"{self._tokens_a_second:,.0f} tokens/s"

    @property
    def notes(self) -> dict[str, Any]:
        """What the provenance tells, of all workers together."""
        return {
            "batch_tokens": min((one["batch_tokens"] for one in self.told), default=self.settled["batch_tokens"]),
            "out_of_memory_splits": sum(one["splits"] for one in self.told),
            "tokens_per_second": round(self._tokens_a_second, 1),
        }

    @property
    def _tokens_a_second(self) -> float:
        return sum(one["tokens"] for one in self.told) / self.seconds if self.seconds else 0.0


def embeddings(encoder: TextEncoder, projection: npt.NDArray[np.float64], lines: Sequence[Line]) -> pa.Table:
    """Return the embeddings of usable versions (with id, version, instruction, input and response), in order.

    `coherence` is the cosine of instruction and response, `truncated` whether either lost its end.
    `instruction_embedding` is the instruction's vector after the projection. Both are null unless `status` is "ok".
    """
    status = np.array([_emptiness(line) for line in lines], dtype=object)
    truncated = np.zeros(len(lines), dtype=bool)
    coherence = np.full(len(lines), np.nan)
    kept = np.full((len(lines), projection.shape[1]), np.nan, dtype=np.float32)
    asked = np.flatnonzero(status == OK)
    good = [line for line, why in zip(lines, status, strict=True) if why == OK]
    found = encoder.embed([*map(whole_instruction, good), *(line["response"] for line in good)])
    instruction, response = slice(len(asked)), slice(len(asked), None)
    status[asked] = np.where(found.status[instruction] != OK, found.status[instruction], found.status[response])
    truncated[asked] = found.truncated[instruction] | found.truncated[response]
    coherence[asked] = _cosine(found.vectors[instruction], found.vectors[response])
    status[(status == OK) & np.isnan(coherence)] = "non_finite"
    kept[asked] = found.vectors[instruction].astype(np.float64) @ projection
    bad = status != OK
    width = projection.shape[1]
    columns = {
        "id": [line["id"] for line in lines],
        "version": [line["version"] for line in lines],
        "status": status,
        "truncated": truncated,
        "coherence": pa.array(coherence, mask=bad),
        "instruction_embedding": pa.FixedSizeListArray.from_arrays(kept.ravel(), width, mask=pa.array(bad)),
    }
    return pa.table(columns, schema=embedding_schema(width))


def embedding_schema(dimensions: int) -> pa.Schema:
    """Return the schema of `embeddings.parquet`."""
    return pa.schema(
        [
            pa.field("id", pa.string(), False),
            pa.field("version", pa.string(), False),
            pa.field("status", pa.string(), False),
            pa.field("truncated", pa.bool_(), False),
            pa.field("coherence", pa.float64()),
            pa.field("instruction_embedding", pa.list_(pa.float32(), dimensions)),
        ]
    )


def whole_instruction(line: Line) -> str:
    """Return an instruction and, where there is one, its input."""
    return f"{line['instruction']}\n{line['input']}" if line["input"].strip() else str(line["instruction"])


def _emptiness(line: Line) -> str:
    for name in ("response", "instruction"):
        if not line[name].strip():
            return f"empty_{name}"
    return OK


def _cosine(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of vectors, shape [pairs]; NaN where one has no direction."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        found: npt.NDArray[np.float64] = (one * other).sum(axis=1) / (
            np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        )
    return found


def _quantiles(coherence: npt.NDArray[np.float64]) -> Metrics:
    if not len(coherence):
        return {}
    low, middle, high = np.quantile(coherence, (0.1, 0.5, 0.9))
    return {"coherence/p10": float(low), "coherence/median": float(middle), "coherence/p90": float(high)}
