"""What a keep filter is: it refuses rows, each with a reason (the paper, section 3.2).

A filter returns a reason for every row that it refuses, and an empty string for those that it keeps. A row without the
score that a filter needs is refused, and the reason says so: a failure is never a number that passes "< 1".

To add one: a file here with a subclass that says what it `needs` and whom it refuses, and a YAML in conf/keep.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from srecycle.config import Component, component

Reasons = npt.NDArray[Any]
Column = npt.NDArray[np.float64]

ORIGINAL = "original_"
"""Before the name of a text that a filter needs: that of the row's original, not of the version that was taken."""

EMBEDDING = "instruction_embedding"
"""The vectors that an embedder makes of instructions."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What the student took; arrays of shape [rows], in source order.

    `version` names it, `columns` holds its scores and `score_status` why some are missing. `texts` (dtype object) has
    the columns of the version table that filters need, of the version that was taken or, where their name begins with
    `ORIGINAL`, of the row's original. `vectors` has shape [rows, dimensions].
    """

    version: npt.NDArray[Any]
    score_status: npt.NDArray[Any]
    columns: Mapping[str, Column]
    id: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=object))
    texts: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    vectors: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def only(self, rows: npt.NDArray[np.bool_]) -> "Chosen":
        """Return these rows."""
        return replace(
            self,
            version=self.version[rows],
            score_status=self.score_status[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            id=self.id[rows],
            texts={name: values[rows] for name, values in self.texts.items()},
            vectors={name: values[rows] for name, values in self.vectors.items()},
        )


@component
class Keep(Component, ABC):
    """Refuses rows."""

    needs: ClassVar[tuple[str, ...]] = ()
    """What this filter reads: scores, columns of the version table (also those of `ORIGINAL`), or `EMBEDDING`."""

    compares: ClassVar[bool] = False
    """Whether rows are judged beside each other (the best tenth, one of each kind): such filters come after those that
    judge each row by itself, and see what these leave."""

    @property
    def needed(self) -> tuple[str, ...]:
        """What this filter reads as it is configured."""
        return self.needs

    @abstractmethod
    def reasons(self, chosen: Chosen) -> Reasons:
        """Return why each row is refused, shape [rows]; "" keeps it."""

    def slack(self, chosen: Chosen) -> Column | None:
        """Return by how much each row is on the kept side of the filter's limit (negative: refused), where it has one.

        NaN where moving the limit changes nothing.
        """
        return None

    def findings(self, chosen: Chosen) -> Mapping[str, npt.NDArray[np.bool_]]:
        """Return which rows show what, refused for it or not: by name, shape [rows] each. They are counted."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one filter says: the number of each row's reason in `names`, shape [rows]. The first name is "": kept."""

    number: npt.NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the filters say; arrays of shape [rows].

    `number` is that of a row's first refusal in `names` (0 where there is none), and `refusals` counts them.
    """

    keep: Mapping[str, Keep]
    chosen: Chosen
    number: npt.NDArray[np.int64]
    names: tuple[str, ...]
    refusals: npt.NDArray[np.int64]
    asked: Mapping[str, npt.NDArray[np.bool_]]

    @cached_property
    def reason(self) -> Reasons:
        """The first refusal, "" where there is none."""
        reasons: Reasons = np.array(self.names, dtype=object)[self.number]
        return reasons

    @property
    def refused(self) -> dict[str, int]:
        """How many rows each reason refuses first."""
        counts: Counter[str] = Counter()
        for name, count in zip(self.names, np.bincount(self.number, minlength=len(self.names)).tolist(), strict=True):
            counts[name] += count
        return {name: count for name, count in sorted(counts.items()) if name and count}

    @property
    def flip(self) -> Column:
        """The smallest change of one filter's limit beyond which the row is decided the other way, NaN without one."""
        return self._nearest[0]

    @property
    def flip_of(self) -> Reasons:
        """That filter's name, "" where no single change decides the row the other way."""
        return self._nearest[1]

    @cached_property
    def _nearest(self) -> tuple[Column, Reasons]:
        # What a filter that compares would say of a row that it was not asked about is not known.
        settled = np.logical_and.reduce([np.ones(len(self.number), dtype=bool), *self.asked.values()])
        return _flips({name: self._slack(name) for name in ordered(self.keep)}, self.refusals, settled)

    def _slack(self, name: str) -> Column | None:
        """Return a filter's slack: one that compares has a limit among the rows that it was asked about."""
        asked = self.asked.get(name)
        if asked is None:
            return self.keep[name].slack(self.chosen)
        found = self.keep[name].slack(self.chosen.only(asked))
        if found is None:
            return None
        slack = np.full(len(self.number), np.nan)
        slack[asked] = found
        return slack


def told_by(one: Keep, chosen: Chosen) -> Told:
    """Ask one filter."""
    encoded = pa.array(one.reasons(chosen), type=pa.string()).dictionary_encode()
    found = encoded.dictionary.to_pylist()
    names = ("", *(name for name in found if name))
    numbers = np.array([names.index(name) for name in found], dtype=np.int64)
    return Told(number=numbers[encoded.indices.to_numpy(zero_copy_only=False)], names=names)


def ordered(keep: Mapping[str, Keep]) -> list[str]:
    """Return the names of filters in the order of their say: by name, first those that judge a row by itself."""
    return sorted(keep, key=lambda name: (keep[name].compares, name))


def filtered(keep: Mapping[str, Keep], chosen: Chosen, known: Mapping[str, Told] | None = None) -> Kept:
    """Apply filters in their order: first those that judge a row by itself, then those that compare.

    `known` is what filters of the first sort said of the same rows already: they are not asked again.
    """
    rows = len(chosen.version)
    number, refusals = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    names: tuple[str, ...] = ("",)
    compared: dict[str, npt.NDArray[np.bool_]] = {}
    for name in ordered(keep):
        if keep[name].compares:
            asked = compared[name] = number == 0
            told = told_by(keep[name], chosen.only(asked))
            said = np.zeros(rows, dtype=np.int64)
            said[asked] = told.number
        else:
            told = (known or {}).get(name) or told_by(keep[name], chosen)
            said = told.number
        refuses = said != 0
        refusals += refuses
        number = np.where(refuses & (number == 0), said + (len(names) - 1), number)
        names += told.names[1:]
    return Kept(keep=keep, chosen=chosen, number=number, names=names, refusals=refusals, asked=compared)


def _flips(
    slacks: Mapping[str, Column | None], refusals: npt.NDArray[np.int64], settled: npt.NDArray[np.bool_]
) -> tuple[Column, Reasons]:
    """Find for each row the limit that decides it most narrowly: a kept row's nearest, a refused row's only one.

    `settled` rows are those that every filter was asked about.
    """
    flip, flip_of = np.full(len(refusals), np.nan), np.full(len(refusals), "", dtype=object)
    for name, slack in slacks.items():
        if slack is None:
            continue
        decides = np.where(refusals == 0, slack >= 0, (refusals == 1) & settled & (slack < 0))
        nearer = decides & ~np.isnan(slack) & ~(np.abs(flip) <= np.abs(slack))
        flip, flip_of = np.where(nearer, slack, flip), np.where(nearer, name, flip_of)
    return flip, flip_of
