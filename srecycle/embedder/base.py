"""What an embedder is: it turns texts into vectors whose cosine says how much they are about the same.

In: texts. Out, for each: one vector, and whether its end was cut; or the reason why there is none. A vector depends
neither on the texts beside it nor on their order, but for rounding (under 1e-5, in fp32). Nothing is loaded before
`load`, and one loading serves a whole stage.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import OK
from srecycle.student import Student

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """A text as the model is fed it: `content` is its own affair, `tokens` are counted after the cut."""

    content: Any
    tokens: int
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What became of texts; of shape [texts], and for `vectors` [texts, dimensions].

    `status` is "ok", or the reason why a text has no vector, which is NaN then. `truncated` says that the text's end
    was cut.
    """

    vectors: Vectors
    status: npt.NDArray[Any]
    truncated: npt.NDArray[np.bool_]


class TextEncoder(ABC):
    """An embedder's model in memory. `model` names it by its content, `dimensions` is the length of its vectors.

    `batch_tokens` is the budget of a batch, padding included; it is lowered when the device runs out of memory.
    Texts of more than `window` tokens never stand in a batch with shorter ones, which a model may read in another way
    then. Counted: `read_tokens`, and the `splits` of batches that memory didn't hold. Once `stopped`, by any thread, it
    ends after the batch that it is at.
    """

    model: str
    dimensions: int
    batch_tokens: int
    window: int

    def __init__(self) -> None:
        """Count from zero."""
        self.read_tokens = self.splits = 0
        self.stopped = False
        self._computing = threading.Lock()  # two batches at once would share the device, and its memory, for nothing

    @abstractmethod
    def tokenized(self, texts: Sequence[str]) -> list[Tokenized]:
        """Tokenise texts, and cut what is too long."""

    @abstractmethod
    def vectors(self, batch: Sequence[Tokenized]) -> Vectors:
        """Return the vectors of texts that hold at least one token each, [texts, dimensions]."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed texts, equal ones once, in batches of similar length. Threads may call this at the same time."""
        different = sorted(set(texts))
        readings = self.tokenized(different)
        vectors = np.full((len(different), self.dimensions), np.nan, dtype=np.float32)
        status = np.full(len(different), "too_short", dtype=object)
        with self._computing:
            for batch in self._batches([one.tokens for one in readings]):
                if self.stopped:
                    raise UserError("embedding stopped with the run; the same command goes on where it stopped")
                self._compute(batch, readings, vectors, status)
        wrong = (status == OK) & ~np.isfinite(vectors).all(axis=1)
        status[wrong], vectors[wrong] = "non_finite", np.nan
        place = {text: number for number, text in enumerate(different)}
        wanted = np.array([place[text] for text in texts], dtype=np.int64)
        truncated = np.array([one.truncated for one in readings], dtype=bool)
        self.read_tokens += sum(readings[number].tokens for number in wanted)
        return Embedded(vectors=vectors[wanted], status=status[wanted], truncated=truncated[wanted])

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Split the places of texts into batches by length; texts without tokens stand in none."""
        batch: list[int] = []
        for place in sorted((place for place, length in enumerate(lengths) if length), key=lambda one: lengths[one]):
            apart = batch and (lengths[batch[0]] > self.window) != (lengths[place] > self.window)
            if batch and (apart or lengths[place] * (len(batch) + 1) > self.batch_tokens):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _compute(
        self, batch: list[int], readings: Sequence[Tokenized], vectors: Vectors, status: npt.NDArray[Any]
    ) -> None:
        """Compute a batch; where memory runs out, its halves, down to a single text, which then has a reason."""
        try:
            vectors[batch] = self.vectors([readings[place] for place in batch])
            status[batch] = OK
            return
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # Only here, where the error is gone: it held what was in memory.
        if len(batch) == 1:
            status[batch] = "out_of_memory"
            return
        half = (len(batch) + 1) // 2
        self.splits += 1
        self.batch_tokens = min(self.batch_tokens, half * readings[batch[-1]].tokens)
        say(f"  out of memory: going on with batches of {self.batch_tokens} tokens")
        for part in (batch[:half], batch[half:]):
            self._compute(part, readings, vectors, status)


@component
class Embedder(Component, ABC):
    """Embeds texts. At most `dimensions` numbers of a vector are kept.

    Where the model has more, they are a random projection (Johnson-Lindenstrauss) drawn by `projection_seed`: what is
    compared exactly, coherence, is computed before. `batch_tokens` is the token budget of a batch (default: what suits
    the device).
    """

    uses_student: ClassVar[bool]
    """Whether `load` needs the experiment's student, which then is part of the result's identity."""

    dimensions: Annotated[int, Field(ge=2)] = 128
    projection_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    batch_tokens: Annotated[int, Field(ge=1)] | None = runtime(None)

    def check(self, student: Student | None) -> None:
        """Raise UserError where what this embedder needs is missing."""
        return

    @abstractmethod
    def load(self, student: Student | None) -> TextEncoder:
        """Load the model. Raises UserError where it can't be loaded."""

    def projection(self, length: int) -> npt.NDArray[np.float64]:
        """Return the matrix that shortens vectors of this length, [length, at most `dimensions`]."""
        if length <= self.dimensions:
            return np.eye(length)
        # This generator's stream is frozen for good; those of newer ones may change with numpy.
        drawn = np.random.RandomState(self.projection_seed).standard_normal((length, self.dimensions))
        shortening: npt.NDArray[np.float64] = drawn / np.sqrt(self.dimensions)
        return shortening


def _out_of_memory(error: RuntimeError) -> bool:
    """Tell a lack of memory, which torch raises as a class of its own for GPUs only, from other errors."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
