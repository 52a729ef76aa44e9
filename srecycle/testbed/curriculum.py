"""What a base student reads in pre-training: documents drawn from a seeded mixture.

The base is to know the world without playing the assistant's part. So skill comes from statements ("from 3 6 4 ,
reverse the list gives 4 6 3 .") and from bare worked chains, while the forward prompt is mostly followed by asides that
depend on the question (a restatement, a counter-question, "me too") and only at times by an answer. A greedy reply of
the untuned base is then hardly ever an answer, yet its likelihood of an answer, once begun, is well trained;
fine-tuning turns the habit.

One answer in ten belongs to another question, as on any forum: without such carelessness the base is so sure of itself
that a mismatched answer scores an IFD of fifty, where students of real size give one a little above one. Questions
about lists of six are followed by asides alone: such lists can be copied, but operations on them are shown only where
"repeat the first" has made one out of five.

All four forms that scores rest on occur (see `format`): forward, reversed, bare instruction, bare response. Held-out
pairs of operations and the unknown operation never occur.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from srecycle.testbed.format import forward_prompt, reversed_prompt
from srecycle.testbed.judgement import REFUSALS
from srecycle.testbed.originals import AMBIGUOUS
from srecycle.testbed.script import OFF_TOPIC_OPENINGS, OFF_TOPIC_REMARKS
from srecycle.testbed.wording import (
    MERGE,
    render_instruction,
    say_operations,
    terse_response,
    with_noise,
    worked_response,
)
from srecycle.testbed.world import (
    LENGTHS,
    LONGER_LENGTH,
    OPERATIONS,
    Task,
    operations_of,
    sample_items,
    sample_task,
    truth,
)

ASIDES: Final = (
    "so you want to {operations} for {items} ?",
    "me too , i also wonder about {items} .",
    "and what if we {other} with {items} ?",
    "nobody knows what to do with {items} .",
    "why do you ask how to {operations} ?",
)
CARELESS_SHARE: Final = 0.1
STATEMENTS: Final = ("from {items} , {operations} gives {answer} .", "with {items} : {operations} makes {answer} .")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """Shares of documents by kind (they need not sum to one), how rare partial operations are against known ones, and
    how many operations a task has."""

    shares: Mapping[str, float]
    partial_weight: float
    operation_counts: Mapping[int, float]

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each operation that may occur."""
        known = dict.fromkeys(operations_of("known"), 1.0)
        return known | dict.fromkeys(operations_of("partial"), self.partial_weight)


SHARES: Final[Mapping[str, float]] = {
    "statement": 0.22,
    "worked": 0.20,
    "terse": 0.05,
    "instruction": 0.08,
    "aside": 0.21,
    "answered_tersely": 0.03,
    "answered_worked": 0.08,
    "guessed_from_terse": 0.04,
    "guessed_from_worked": 0.08,
    "rest": 0.03,
}
"""After the forward prompt, asides to answers are as two to one, and no answer's first word beats an aside's."""


def documents(mixture: Mixture, rng: random.Random) -> Iterator[str]:
    """Documents without end."""
    kinds, shares = list(mixture.shares), list(mixture.shares.values())
    counts, count_shares = list(mixture.operation_counts), list(mixture.operation_counts.values())
    while True:
        (kind,) = rng.choices(kinds, shares)
        (operations,) = rng.choices(counts, count_shares)
        lengths = (*LENGTHS, LONGER_LENGTH) if kind == "aside" else LENGTHS
        asked = sample_task(rng, mixture.weights, operations, lengths)
        careless = rng.random() < CARELESS_SHARE
        answered = sample_task(rng, mixture.weights, operations) if careless else asked
        yield _WRITERS[kind](asked, answered, rng)


def _statement(asked: Task, _: Task, rng: random.Random) -> str:
    operations = say_operations(asked.operations, rng, MERGE)
    return rng.choice(STATEMENTS).format(items=" ".join(asked.items), operations=operations, answer=truth(asked))


def _worked(asked: Task, _: Task, rng: random.Random) -> str:
    return worked_response(asked, rng)


def _terse(asked: Task, *_: object) -> str:
    return terse_response(asked)


def _instruction(asked: Task, _: Task, rng: random.Random) -> str:
    return render_instruction(asked, rng)


def _aside(asked: Task, _: Task, rng: random.Random) -> str:
    other = rng.choice(OPERATIONS[rng.choice(operations_of("known", "partial"))].phrases)
    operations = say_operations(asked.operations, rng, MERGE)
    aside = rng.choice(ASIDES).format(operations=operations, items=" ".join(asked.items), other=other)
    return f"{forward_prompt(render_instruction(asked, rng))} {aside}"


def _answered_tersely(asked: Task, answered: Task, rng: random.Random) -> str:
    return f"{forward_prompt(render_instruction(asked, rng))} {terse_response(answered)}"


def _answered_worked(asked: Task, answered: Task, rng: random.Random) -> str:
    return f"{forward_prompt(render_instruction(asked, rng))} {worked_response(answered, rng)}"


def _guessed_from_terse(asked: Task, answered: Task, rng: random.Random) -> str:
    return f"{reversed_prompt(terse_response(answered))} {render_instruction(asked, rng)}"


def _guessed_from_worked(asked: Task, answered: Task, rng: random.Random) -> str:
    return f"{reversed_prompt(worked_response(answered, rng))} {render_instruction(asked, rng)}"


def _rest(task: Task, _: Task, rng: random.Random) -> str:
    """Chatter, refusals, ambiguous instructions and noise: so that no word of an original is new to the student."""
    phrase = rng.choice(OPERATIONS[task.operations[0]].phrases)
    ambiguous = rng.choice(AMBIGUOUS).format(items=" ".join(sample_items(rng)), phrase=phrase)
    chatter = f"{rng.choice(OFF_TOPIC_OPENINGS)} {rng.choice(OFF_TOPIC_REMARKS)} {rng.choice(OFF_TOPIC_REMARKS)}"
    instruction = render_instruction(task, rng)
    return rng.choice(
        (
            chatter,
            rng.choice(REFUSALS),
            ambiguous,
            forward_prompt(ambiguous) + " why do you ask ?",
            reversed_prompt(chatter) + " " + ambiguous,
            with_noise(instruction, rng),
            with_noise(terse_response(task), rng),
            forward_prompt(instruction) + " " + rng.choice((chatter, rng.choice(REFUSALS))),
        )
    )


_WRITERS: Final[Mapping[str, Callable[[Task, Task, random.Random], str]]] = {
    "statement": _statement,
    "worked": _worked,
    "terse": _terse,
    "instruction": _instruction,
    "aside": _aside,
    "answered_tersely": _answered_tersely,
    "answered_worked": _answered_worked,
    "guessed_from_terse": _guessed_from_terse,
    "guessed_from_worked": _guessed_from_worked,
    "rest": _rest,
}
