"""Deduplication: of instructions that say the same in nearly the same words, one is kept.

Likeness is lexical, the Jaccard similarity of two texts' sets of 5 characters in a row: a threshold then means the same
for every student and embedder, and needs no forward pass. Pairs are found by MinHash and locality-sensitive hashing
(Broder 1997; datasketch), and then compared exactly: no row is refused for one that is less alike than was set.
"""

import unicodedata
import zlib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import Chosen, Keep, Reasons
from srecycle.keep.preference import preferences, unscored
from srecycle.keep.share import ScoreName

_CHARACTERS = 5
_PERMUTATIONS = 128
_MISSED = 1e-3
"""The highest probability with which hashing may miss a pair that is just as alike as the setting says."""

_ERROR = 0.2
"""How far a pair's likeness is from what hashing says of it, at most: over four standard deviations."""

Shingles = npt.NDArray[np.uint32]


@component
class Deduplicated(Keep):
    """Keeps one of each group of rows whose instructions, with input and history, are at least `similarity` alike.

    Kept is the one with the highest (or lowest) value of the score `by`; of equal ones, the one whose id comes first.
    Where `by` is null it is the first in the source, which is the order of the rows. A row is refused only for one that
    is kept. Case, spaces and compatibility forms of characters make no difference: `similarity=1` finds texts that are
    otherwise the same, and those only.
    """

    revision: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("instruction", "input", "history")
    compares: ClassVar[bool] = True

    similarity: Annotated[float, Field(gt=0, le=1)] = 0.8
    by: ScoreName | None = None
    highest: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """The instruction's texts, and the score."""
        return (*self.needs, self.by) if self.by else self.needs

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows without the score, and those that are like one that is preferred to them and kept."""
        told = unscored(chosen, self.by)
        preference = preferences(chosen, self.by, self.highest, np.zeros(len(told)))
        ties = np.arange(len(told)) if self.by is None else chosen.id.astype(str)
        ranked = [place for place in np.lexsort((ties, -preference)) if told[place] == ""]
        texts = [normalised(*one) for one in zip(*(chosen.texts[name] for name in self.needs), strict=True)]
        first = {texts[place]: place for place in reversed(ranked)}
        kept = {first[text] for text in self._unlike(list(dict.fromkeys(texts[place] for place in ranked)))}
        told[[place for place in ranked if place not in kept]] = "duplicate"
        return told

    def _unlike(self, texts: list[str]) -> list[str]:
        """Return the texts, in order, without those that are like an earlier one of the result."""
        if self.similarity == 1:
            return texts
        from datasketch import MinHash, MinHashLSH

        index = MinHashLSH(threshold=self.similarity, num_perm=_PERMUTATIONS, params=_bands(self.similarity))
        shingles = [_shingles(text) for text in texts]
        sketches = MinHash.generator(shingles, num_perm=_PERMUTATIONS, hashfunc=int, scheme="affine32")
        hashes = np.empty((len(texts), _PERMUTATIONS), dtype=np.uint32)
        kept = []
        for place, sketch in enumerate(sketches):
            hashes[place] = sketch.hashvalues
            others = np.array(index.query(sketch), dtype=np.int64)
            likeness = (hashes[others] == hashes[place]).mean(axis=1)
            likeliest = others[np.argsort(-likeness)][: np.count_nonzero(likeness > self.similarity - _ERROR)]
            if any(_jaccard(shingles[place], shingles[other]) >= self.similarity for other in likeliest):
                continue
            index.insert(place, sketch)
            kept.append(texts[place])
        return kept


def normalised(instruction: str, input: str, history: Sequence[Any] = ()) -> str:
    """Return what is compared of a question: all its texts without case, and with single spaces."""
    whole = " ".join([*(turn["content"] for turn in history), instruction, input])
    return " ".join(unicodedata.normalize("NFKC", whole).casefold().split())


def _bands(similarity: float) -> tuple[int, int]:
    """Return the number of bands, and of hashes in each: as many as miss few pairs, since more find fewer in vain."""
    hashes = 1
    while hashes < _PERMUTATIONS and (1 - similarity ** (hashes + 1)) ** (_PERMUTATIONS // (hashes + 1)) <= _MISSED:
        hashes += 1
    return _PERMUTATIONS // hashes, hashes


def _shingles(text: str) -> Shingles:
    """Return the hashes of all runs of characters, each once and in order; a shorter text is a run of its own."""
    starts = range(max(1, len(text) - _CHARACTERS + 1))
    runs = {text[start : start + _CHARACTERS] for start in starts}
    return np.unique(np.array([zlib.crc32(run.encode("utf-8", "surrogatepass")) for run in runs], dtype=np.uint32))


def _jaccard(one: Shingles, other: Shingles) -> float:
    """Return the share of what two sets have together that is in both."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
