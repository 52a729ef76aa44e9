"""The micro-world: short lists, thirteen operations on them, and tasks whose truth is known by construction.

A task is a list of three to five items (all digits, or all nouns) and a chain of operations. Its truth is computed,
never looked up, so whatever a teacher writes or a student answers can be judged from the texts alone.

Operations differ in how often a base student meets them in pre-training: "known" ones often, "partial" ones rarely, the
"unknown" one never. A quarter of the ordered pairs of known and partial operations is held out: no adjacent pair of
them occurs in pre-training text, in originals or in a teacher's rewrites, only in the held-out test of unseen pairs.

Everything here is a pure function of its arguments; randomness comes in as a `random.Random`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

Items = tuple[str, ...]
Familiarity = Literal["known", "partial", "unknown"]

DIGITS: Final[Items] = tuple("0123456789")
NOUNS: Final[Items] = (
    *("apple", "bird", "cake", "dog", "egg", "fish", "goat", "hat"),
    *("ink", "jar", "key", "lamp", "moon", "nest", "owl", "pen"),
)
LENGTHS: Final = (3, 4, 5)
LONGER_LENGTH: Final = 6
_ATTEMPTS: Final = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation on a list. `ends` marks those whose result is no list to go on with."""

    apply: Callable[[Items], Items]
    phrases: tuple[str, ...]
    familiarity: Familiarity = "known"
    digits_only: bool = False
    ends: bool = False
    least_items: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A list and the names of the operations to carry out on it, first to last."""

    items: Items
    operations: tuple[str, ...]


def _shift(items: Items, by: int) -> Items:
    return tuple(str((int(item) + by) % 10) for item in items)


OPERATIONS: Final[Mapping[str, Operation]] = {
    "reverse": Operation(
        apply=lambda items: items[::-1],
        phrases=("reverse the list", "turn the list around", "write the list backwards"),
    ),
    "add_one": Operation(
        apply=lambda items: _shift(items, 1),
        phrases=("add one to each", "raise each by one", "count each up by one"),
        digits_only=True,
    ),
    "drop_first": Operation(
        apply=lambda items: items[1:],
        phrases=("drop the first", "remove the first item", "leave out the first"),
        least_items=2,
    ),
    "drop_last": Operation(
        apply=lambda items: items[:-1],
        phrases=("drop the last", "remove the last item", "leave out the last"),
        least_items=2,
    ),
    "rotate_left": Operation(
        apply=lambda items: items[1:] + items[:1],
        phrases=("move the first to the end", "shift the list left", "put the first item last"),
        least_items=2,
    ),
    "largest": Operation(
        apply=lambda items: (max(items),),
        phrases=("find the largest", "pick the biggest item", "keep only the largest"),
        digits_only=True,
        ends=True,
    ),
    "count": Operation(
        apply=lambda items: (str(len(items)),),
        phrases=("count the items", "say how many there are", "find the length"),
        ends=True,
    ),
    "subtract_one": Operation(
        apply=lambda items: _shift(items, -1),
        phrases=("subtract one from each", "lower each by one", "count each down by one"),
        familiarity="partial",
        digits_only=True,
    ),
    "sort": Operation(
        apply=lambda items: tuple(sorted(items)),
        phrases=("sort the list", "put the list in order", "order from small to large"),
        familiarity="partial",
        digits_only=True,
    ),
    "rotate_right": Operation(
        apply=lambda items: items[-1:] + items[:-1],
        phrases=("move the last to the front", "shift the list right", "put the last item first"),
        familiarity="partial",
        least_items=2,
    ),
    "smallest": Operation(
        apply=lambda items: (min(items),),
        phrases=("find the smallest", "pick the least item", "keep only the smallest"),
        familiarity="partial",
        digits_only=True,
        ends=True,
    ),
    "repeat_first": Operation(
        apply=lambda items: items[:1] + items,
        phrases=("repeat the first", "say the first twice", "double the first item"),
        familiarity="partial",
    ),
    "trade_ends": Operation(
        apply=lambda items: items[-1:] + items[1:-1] + items[:1],
        phrases=("trade both ends", "exchange both ends", "swap both ends"),
        familiarity="unknown",
        least_items=2,
    ),
}


def operations_of(*familiarities: Familiarity) -> tuple[str, ...]:
    """Names of the operations of the given familiarities, in table order."""
    return tuple(name for name, operation in OPERATIONS.items() if operation.familiarity in familiarities)


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    names = operations_of("known", "partial")
    pairs = [(first, second) for first in names for second in names if first != second and not OPERATIONS[first].ends]
    return frozenset(random.Random("held-out pairs").sample(pairs, len(pairs) // 4))


HELD_OUT_PAIRS: Final = _held_out_pairs()


def states(task: Task) -> tuple[Items, ...]:
    """The list after each operation, first to last."""
    found: list[Items] = []
    items = task.items
    for name in task.operations:
        items = OPERATIONS[name].apply(items)
        found.append(items)
    return tuple(found)


def truth(task: Task) -> str:
    """The right final answer, items joined by spaces."""
    return " ".join(states(task)[-1])


def is_possible(task: Task) -> bool:
    """Whether every operation applies to what the one before it leaves."""
    items = task.items
    for position, name in enumerate(task.operations):
        operation = OPERATIONS[name]
        if len(items) < operation.least_items or (operation.digits_only and not set(items) <= set(DIGITS)):
            return False
        if operation.ends and position + 1 < len(task.operations):
            return False
        items = operation.apply(items)
    return bool(task.operations)


def holds_unseen_pair(task: Task) -> bool:
    """Whether two neighbouring operations are a held-out pair."""
    return any(pair in HELD_OUT_PAIRS for pair in pairwise(task.operations))


def is_trainable(task: Task) -> bool:
    """Whether training text may hold the task: possible, no held-out pair, no operation twice in a row, and an answer
    that differs from the list it starts from (else copying the question would count as an answer)."""
    repeated = any(first == second for first, second in pairwise(task.operations))
    return is_possible(task) and not holds_unseen_pair(task) and not repeated and states(task)[-1] != task.items


def sample_items(rng: random.Random, lengths: Sequence[int] = LENGTHS, digits_share: float = 0.65) -> Items:
    """A list of digits (repeats allowed) or of distinct nouns."""
    length = rng.choice(lengths)
    if rng.random() < digits_share:
        return tuple(rng.choices(DIGITS, k=length))
    return tuple(rng.sample(NOUNS, length))


def sample_task(
    rng: random.Random, weights: Mapping[str, float], operations: int = 1, lengths: Sequence[int] = LENGTHS
) -> Task:
    """A trainable task of that many operations, drawn by weight. ValueError if the weights allow none."""
    names, shares = list(weights), list(weights.values())
    for _ in range(_ATTEMPTS):
        task = Task(items=sample_items(rng, lengths), operations=tuple(rng.choices(names, shares, k=operations)))
        if is_trainable(task):
            return task
    raise ValueError(f"no task of {operations} operations found among {names}")


def sample_unseen_pair(rng: random.Random, lengths: Sequence[int] = LENGTHS) -> Task:
    """A task that is exactly one held-out pair."""
    pairs = sorted(HELD_OUT_PAIRS)
    while True:
        task = Task(items=sample_items(rng, lengths), operations=rng.choice(pairs))
        if is_possible(task) and states(task)[-1] != task.items:
            return task


def with_added_operations(task: Task, count: int, rng: random.Random, weights: Mapping[str, float]) -> Task:
    """The task with up to `count` operations inserted at random places; fewer where no trainable insertion is found."""
    names, shares = list(weights), list(weights.values())
    for _ in range(count):
        for _ in range(_ATTEMPTS):
            place = rng.randint(0, len(task.operations))
            (name,) = rng.choices(names, shares)
            longer = Task(items=task.items, operations=(*task.operations[:place], name, *task.operations[place:]))
            if is_trainable(longer):
                task = longer
                break
    return task


def with_replaced_operation(task: Task, rng: random.Random, weights: Mapping[str, float]) -> Task:
    """The task with one operation replaced so that its answer differs; the task itself where none is found."""
    names, shares = list(weights), list(weights.values())
    for _ in range(_ATTEMPTS):
        place = rng.randrange(len(task.operations))
        (name,) = rng.choices(names, shares)
        other = Task(items=task.items, operations=(*task.operations[:place], name, *task.operations[place + 1 :]))
        if is_trainable(other) and truth(other) != truth(task):
            return other
    return task


TRAINED_WEIGHTS: Final[Mapping[str, float]] = dict.fromkeys(operations_of("known", "partial"), 1.0)
"""Even weights over the operations that a student can have met."""
