"""Flawed original pairs, with the flaw of each known: what an instruction-tuning set is before a teacher recycles it.

Most responses are terse. The label is the verdict that `judge` gives on the two texts; it is kept for convenience only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from srecycle.testbed.judgement import REFUSALS, VERDICTS, Verdict, is_within_reach, judge
from srecycle.testbed.wording import render_instruction, terse_response, with_noise, worked_response
from srecycle.testbed.world import (
    DIGITS,
    NOUNS,
    OPERATIONS,
    Items,
    Task,
    operations_of,
    sample_items,
    sample_task,
    states,
    truth,
    with_replaced_operation,
)

MIX: Final[Mapping[str, float]] = {
    "ok": 0.45,
    "wrong_answer": 0.15,
    "mismatched": 0.12,
    "refusal": 0.10,
    "ambiguous": 0.10,
    "noisy": 0.08,
}
OPERATION_COUNTS: Final[Mapping[int, float]] = {1: 0.6, 2: 0.35, 3: 0.05}
WORKED_SHARE: Final = 0.05
WEIGHTS: Final[Mapping[str, float]] = {
    **dict.fromkeys(operations_of("known"), 1.0),
    **dict.fromkeys(operations_of("partial"), 0.6),
}
AMBIGUOUS: Final = (
    "do something with {items} .",
    "make {items} better .",
    "what about {items} ?",
    "change {items} a little .",
    "{phrase} .",
    "can you {phrase} ?",
)
_ATTEMPTS: Final = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """One original pair and the verdict on it."""

    instruction: str
    response: str
    label: Verdict


def originals(count: int, seed: int, mix: Mapping[str, float] = MIX) -> list[Original]:
    """That many originals; `mix` gives each label's share (they need not sum to one). Deterministic.

    ValueError for a label that no writer makes, or for shares that are negative or all zero.
    """
    unknown = sorted(set(mix) - set(_WRITERS))
    if unknown:
        raise ValueError(f"mix: unknown labels {unknown}; choose among {sorted(_WRITERS)}")
    if min(mix.values(), default=0) < 0 or sum(mix.values()) <= 0:
        raise ValueError(f"mix: shares must not be negative and not all zero, got {dict(mix)}")
    rng = random.Random(f"originals {seed}")
    ordered = sorted(mix, key=list(_WRITERS).index)  # the order in which shares are written must not matter
    labels = rng.choices(ordered, [mix[label] for label in ordered], k=count)
    return [_original(label, rng) for label in labels]


def _original(label: str, rng: random.Random) -> Original:
    for _ in range(_ATTEMPTS):
        instruction, response = _WRITERS[label](rng)
        if (verdict := judge(instruction, response)) == label:
            return Original(instruction=instruction, response=response, label=verdict)
    raise AssertionError(f"no original judged {label!r} in {_ATTEMPTS} attempts")


def _task(rng: random.Random) -> Task:
    (operations,) = rng.choices(list(OPERATION_COUNTS), list(OPERATION_COUNTS.values()))
    return sample_task(rng, WEIGHTS, operations)


def _answer(task: Task, rng: random.Random) -> str:
    return worked_response(task, rng) if rng.random() < WORKED_SHARE else terse_response(task)


def _write_ok(rng: random.Random) -> tuple[str, str]:
    task = _task(rng)
    return render_instruction(task, rng), _answer(task, rng)


def _write_wrong_answer(rng: random.Random) -> tuple[str, str]:
    task = _task(rng)
    return render_instruction(task, rng), wrong_terse_response(task, rng)


def _write_mismatched(rng: random.Random) -> tuple[str, str]:
    return render_instruction(_task(rng), rng), _answer(_task(rng), rng)


def _write_refusal(rng: random.Random) -> tuple[str, str]:
    return render_instruction(_task(rng), rng), rng.choice(REFUSALS)


def _write_ambiguous(rng: random.Random) -> tuple[str, str]:
    phrase = rng.choice(OPERATIONS[rng.choice(operations_of("known", "partial"))].phrases)
    items = sample_items(rng)
    instruction = rng.choice(AMBIGUOUS).format(items=" ".join(items), phrase=phrase)
    task = sample_task(rng, WEIGHTS)
    return instruction, f"{' '.join(items)} ." if rng.random() < 0.3 else terse_response(task)


def _write_noisy(rng: random.Random) -> tuple[str, str]:
    instruction, response = _write_ok(rng)
    if rng.random() < 0.5:
        instruction = with_noise(instruction, rng)
    return instruction, with_noise(response, rng)


def wrong_terse_response(task: Task, rng: random.Random) -> str:
    """A slip: one item of the answer changed, two swapped, or one operation taken for another; where chance finds none,
    the list as it was. Never the truth of a trainable task."""
    right = states(task)[-1]
    for _ in range(_ATTEMPTS):
        slip = rng.choice((_with_changed_item, _with_swapped_items))(right, rng)
        if rng.random() < 0.4:
            slip = states(with_replaced_operation(task, rng, WEIGHTS))[-1]
        if " ".join(slip) != truth(task) and is_within_reach(task, slip):
            return f"{' '.join(slip)} ."
    return f"{' '.join(task.items)} ."


def _with_changed_item(items: Items, rng: random.Random) -> Items:
    kind = DIGITS if items[0] in DIGITS else NOUNS
    place = rng.randrange(len(items))
    return (*items[:place], rng.choice(kind), *items[place + 1 :])


def _with_swapped_items(items: Items, rng: random.Random) -> Items:
    first, second = rng.randrange(len(items)), rng.randrange(len(items))
    swapped = list(items)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return tuple(swapped)


_WRITERS: Final[Mapping[str, Callable[[random.Random], tuple[str, str]]]] = {
    "ok": _write_ok,
    "wrong_answer": _write_wrong_answer,
    "mismatched": _write_mismatched,
    "refusal": _write_refusal,
    "ambiguous": _write_ambiguous,
    "noisy": _write_noisy,
}
assert set(_WRITERS) <= set(VERDICTS)
