"""The micro-world's language: tasks into words and back, by closed grammars over space-separated lower-case tokens.

An instruction names a list and a chain of operations in one of several frames and paraphrases. A terse response is the
bare answer ("3 6 4 ."). A worked response states the list, then each step and what it gives, then the answer, in varied
wording, so that two honest responses to one task rarely are the same string. Reading is strict: text outside the
grammar, the noise words apart, does not parse.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from srecycle.testbed.world import DIGITS, NOUNS, OPERATIONS, Items, Task, is_possible, states, truth

NOISE: Final = ("um", "uh", "lol", "hmm", "asap", "!!")
HEDGE: Final = "as i see it ,"
FILLER: Final = "you know ,"
CONNECTORS: Final = (" , then ", " and then ")
FRAMES: Final = (
    "{operations} : {items} .",
    "given {items} , {operations} .",
    "please {operations} for {items} .",
    "take {items} and {operations} .",
    "i have {items} . {operations} .",
    "here is a list : {items} . now {operations} .",
)
OPENINGS: Final = ("start with {items} .", "we begin with {items} .", "the list is {items} .", "here is {items} .")
STEPS: Final = (
    "{operations} gives {items} .",
    "{operations} : {items} .",
    "we {operations} to get {items} .",
    "then {operations} , which makes {items} .",
    "next {operations} and see {items} .",
)
CLOSINGS: Final = ("the answer is {items} .", "so it is {items} .", "answer : {items} .", "result : {items} .")
MERGE: Final = " plus "

ITEM_PATTERN: Final = "(?:" + "|".join((*DIGITS, *NOUNS)) + ")"
FINAL_ANSWER_PATTERN: Final = rf"(?<!\S)({ITEM_PATTERN}(?: {ITEM_PATTERN})*) \."
"""A run of items closed by a full stop. The last one in a response is its final answer, for lm-eval's filter too."""

_PHRASES: Final = {phrase: name for name, operation in OPERATIONS.items() for phrase in operation.phrases}
_PHRASE = "(?:" + "|".join(sorted(map(re.escape, _PHRASES), key=len, reverse=True)) + ")"
_LIST = rf"(?P<items>{ITEM_PATTERN}(?: {ITEM_PATTERN})*)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One sentence of a worked response: the operations it names, and the list it says they give."""

    operations: tuple[str, ...]
    items: Items


@dataclass(frozen=True, kw_only=True, slots=True)
class Worked:
    """A worked response as read: the list it starts from, its steps, and the answer it ends in."""

    items: Items
    steps: tuple[Step, ...]
    answer: Items


def _grammar(templates: Sequence[str], separators: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    chain = f"(?P<operations>{_PHRASE}(?:(?:{'|'.join(map(re.escape, separators))}){_PHRASE})*)"
    slots = {re.escape("{items}"): _LIST, re.escape("{operations}"): chain}
    patterns = []
    for template in templates:
        pattern = re.escape(template)
        for slot, expression in slots.items():
            pattern = pattern.replace(slot, expression)
        patterns.append(re.compile(pattern))
    return tuple(patterns)


_FRAME_PATTERNS: Final = _grammar(FRAMES, CONNECTORS)
_OPENING_PATTERNS: Final = _grammar(OPENINGS, (MERGE,))
_STEP_PATTERNS: Final = _grammar(STEPS, (MERGE,))
_CLOSING_PATTERNS: Final = _grammar(CLOSINGS, (MERGE,))


def say_operations(names: Sequence[str], rng: random.Random, connector: str) -> str:
    """The operations in words, each in a paraphrase drawn afresh."""
    return connector.join(rng.choice(OPERATIONS[name].phrases) for name in names)


def render_instruction(task: Task, rng: random.Random) -> str:
    """The task as an instruction that stands alone."""
    operations = say_operations(task.operations, rng, rng.choice(CONNECTORS))
    return rng.choice(FRAMES).format(operations=operations, items=" ".join(task.items))


def terse_response(task: Task) -> str:
    """The bare answer."""
    return f"{truth(task)} ."


def worked_response(task: Task, rng: random.Random) -> str:
    """Every step, one sentence each, and the answer."""
    steps = [Step(operations=(name,), items=items) for name, items in zip(task.operations, states(task), strict=True)]
    return render_worked(task.items, steps, rng)


def render_worked(items: Items, steps: Sequence[Step], rng: random.Random) -> str:
    """A worked response with the steps as given, true or not; it ends in the last step's list."""
    sentences = [rng.choice(OPENINGS).format(items=" ".join(items))]
    for step in steps:
        operations = say_operations(step.operations, rng, MERGE)
        sentences.append(rng.choice(STEPS).format(operations=operations, items=" ".join(step.items)))
    sentences.append(rng.choice(CLOSINGS).format(items=" ".join(steps[-1].items)))
    return " ".join(sentences)


def without_noise(text: str) -> str:
    """The text with its noise words left out and its spacing made plain."""
    return " ".join(word for word in text.split() if word not in NOISE)


def with_noise(text: str, rng: random.Random) -> str:
    """The text with one to three noise words at its ends: inside, they would break up an answer."""
    before, after = rng.choices(NOISE, k=rng.randint(0, 2)), rng.choices(NOISE, k=1)
    return " ".join([*before, text, *after])


def without_lead_ins(text: str) -> str:
    """The text without the hedge and the filler that it may begin with: they say nothing about its worth."""
    while bare := next((text.removeprefix(f"{one} ") for one in (HEDGE, FILLER) if text.startswith(f"{one} ")), ""):
        text = bare
    return text


def has_noise(text: str) -> bool:
    """Whether a noise word occurs."""
    return not set(text.split()).isdisjoint(NOISE)


def parse_instruction(text: str) -> Task | None:
    """The task that an instruction asks for; None where it is ambiguous, impossible or outside the grammar."""
    plain = without_noise(text)
    for pattern in _FRAME_PATTERNS:
        if match := pattern.fullmatch(plain):
            task = Task(items=tuple(match["items"].split()), operations=_names(match["operations"], CONNECTORS))
            return task if is_possible(task) else None
    return None


def mentioned_items(text: str) -> Items:
    """The first run of two or more items in a text; empty where there is none."""
    match = re.search(rf"(?<!\S){ITEM_PATTERN}(?: {ITEM_PATTERN})+(?!\S)", text)
    return tuple(match[0].split()) if match else ()


def parse_worked(text: str) -> Worked | None:
    """A worked response's list, steps and answer; None where the text is none."""
    plain = without_lead_ins(without_noise(text))
    sentences = [f"{sentence.strip()} ." for sentence in plain.split(" .") if sentence.strip()]
    if len(sentences) < 3:
        return None
    opening = _first_match(_OPENING_PATTERNS, sentences[0])
    closing = _first_match(_CLOSING_PATTERNS, sentences[-1])
    steps = [_first_match(_STEP_PATTERNS, sentence) for sentence in sentences[1:-1]]
    if opening is None or closing is None or None in steps:
        return None
    return Worked(
        items=tuple(opening["items"].split()),
        steps=tuple(
            Step(operations=_names(match["operations"], (MERGE,)), items=tuple(match["items"].split()))
            for match in steps
            if match is not None
        ),
        answer=tuple(closing["items"].split()),
    )


def final_answer(response: str) -> str | None:
    """The answer that a terse or worked response ends in; None where it holds none."""
    found: list[str] = re.findall(FINAL_ANSWER_PATTERN, response)
    return found[-1] if found else None


def _first_match(patterns: Sequence[re.Pattern[str]], text: str) -> re.Match[str] | None:
    return next((match for pattern in patterns if (match := pattern.fullmatch(text))), None)


def _names(chain: str, separators: Sequence[str]) -> tuple[str, ...]:
    return tuple(_PHRASES[phrase] for phrase in re.split("|".join(map(re.escape, separators)), chain))
