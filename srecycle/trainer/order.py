"""In which order rows are trained on, and how many optimiser steps that makes. Pure.

A pass over the data is cut into steps of `batch_size` rows; its last step may be smaller, and no step spans two passes.
`shuffled` draws a new order for each pass from the seed; the other orders are the same in every pass, so that every
pass of a curriculum begins with what is easy. Rows without the score that an order needs stand last. Ties go by id.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count
from typing import Literal

from srecycle.errors import UserError

Order = Literal["shuffled", "curriculum", "rare_first", "source"]
Step = tuple[int, ...]
"""The rows of one optimiser step, by their place in the training set."""

_SCORES: Mapping[str, tuple[str, int]] = {"curriculum": ("ifd", 1), "rare_first": ("loss_y_given_x", -1)}
"""The column that an order sorts by, and whether it rises or falls."""

NEEDS: Mapping[str, tuple[str, ...]] = {"curriculum": ("ifd",), "rare_first": ("perplexity",)}
"""The scores that must have been computed for an order, by the names that selectors use."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes over the data, each `steps_per_pass` steps; `of(number)` gives those of a pass, without end.

    `steps` of them are trained. `without_score` counts rows that the order could not place.
    """

    of: Callable[[int], list[Step]]
    steps_per_pass: int
    without_score: int = 0
    steps: int = 0

    @property
    def begun(self) -> int:
        """How many passes are begun."""
        return math.ceil(self.steps / self.steps_per_pass)

    def first(self, steps: int) -> "Passes":
        """Return these passes with that many steps to be trained."""
        return replace(self, steps=steps)

    def trained(self) -> Iterator[Step]:
        """Yield the steps that are trained, in order."""
        for number in range(self.begun):
            yield from self.of(number)[: self.steps - number * self.steps_per_pass]

    def at(self, step: int) -> Step:
        """Return the rows of a step; the first is 1, as in a training's curve."""
        number, place = divmod(step - 1, self.steps_per_pass)
        return self.of(number)[place]


def arranged(
    order: Order, ids: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, batch_size: int, seed: int
) -> Passes:
    """Arrange rows in passes of steps. Raises UserError where an order needs a score that no row has."""
    fixed, missing = list(range(len(ids))), 0
    if order in _SCORES:
        name, direction = _SCORES[order]
        values = scores.get(name) or [None] * len(ids)
        known = {row: direction * value for row, value in enumerate(values) if value is not None}
        missing = len(ids) - len(known)
        if not known:
            raise UserError(f"trainer.order={order} needs each row's {name}, and none of {len(ids)} rows has it")
        fixed.sort(key=lambda row: (row not in known, known.get(row, 0.0), ids[row]))

    def of(number: int) -> list[Step]:
        rows = _permuted(len(ids), seed + number) if order == "shuffled" else fixed
        return [tuple(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]

    return Passes(of=of, steps_per_pass=math.ceil(len(ids) / batch_size), without_score=missing)


def steps_for_tokens(passes: Passes, lengths: Sequence[int], tokens: int) -> int:
    """Return the fewest steps that see this many tokens: prompts and targets, no padding."""
    sizes = (sum(lengths[row] for row in step) for number in count() for step in passes.of(number))
    return next(place for place, seen in enumerate(accumulate(sizes), start=1) if seen >= tokens)


def _permuted(size: int, seed: int) -> list[int]:
    import torch

    rows: list[int] = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    return rows
