"""The scripted teacher: reflects on a pair and writes the full text of a reply, with faults in known proportion.

In the instruction phase it understands the instruction (of an ambiguous one it makes a concrete task), raises its level
and answers it, tersely by default, so that the response phase has something to improve. In the response phase it keeps
the instruction and writes a worked answer. Each knob is one way in which real teachers help or harm, and can be swept
alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Final

from srecycle.testbed.judgement import Verdict, judge
from srecycle.testbed.originals import WEIGHTS, wrong_terse_response
from srecycle.testbed.wording import (
    Step,
    mentioned_items,
    parse_instruction,
    render_instruction,
    render_worked,
    terse_response,
    worked_response,
)
from srecycle.testbed.world import (
    DIGITS,
    NOUNS,
    OPERATIONS,
    Items,
    Task,
    is_trainable,
    operations_of,
    sample_task,
    states,
    with_added_operations,
    with_replaced_operation,
)

OFF_TOPIC_OPENINGS: Final = ("well ,", "you know ,", "by the way ,", "honestly ,", "as i see it ,")
OFF_TOPIC_REMARKS: Final = (
    "the weather is nice today .",
    "my favourite colour is blue .",
    "music makes me happy .",
    "have a good day .",
    "the sea is calm in summer .",
    "old books smell of dust .",
)
FAULTS: Final = ("hallucinates_step", "mismatches", "goes_off_topic", "drifts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Knobs:
    """What the teacher does, as probabilities in 0..1 (`overshoot_extent`: operations).

    raises_level: a new instruction has one operation more. overshoots: it has `overshoot_extent` more, or one less than
    that. uses_unknown: the added operation is the one that no student has met. terse_first: the instruction phase
    answers tersely. merges_steps: two steps told in one. The faults of an answer, at most one in each:
    hallucinates_step (one step, or the terse answer, is false), mismatches (answers another task), goes_off_topic,
    drifts (one operation replaced). unparsable: a marker of the reply is missing.
    """

    raises_level: float = 0.7
    overshoots: float = 0.0
    overshoot_extent: int = 3
    uses_unknown: float = 0.0
    terse_first: float = 1.0
    merges_steps: float = 0.0
    hallucinates_step: float = 0.0
    mismatches: float = 0.0
    goes_off_topic: float = 0.0
    drifts: float = 0.0
    unparsable: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "overshoot_extent" and not 0 <= value <= 1:
                raise ValueError(f"{field.name}: a probability from 0 to 1, got {value}")
        if self.overshoot_extent < 1:
            raise ValueError(f"overshoot_extent: at least 1 operation, got {self.overshoot_extent}")
        if (total := sum(getattr(self, name) for name in FAULTS)) > 1:
            raise ValueError(f"{', '.join(FAULTS)}: at most one fault an answer, but they sum to {total:g}")


DECENT: Final = Knobs(
    raises_level=0.7,
    overshoots=0.1,
    uses_unknown=0.05,
    merges_steps=0.1,
    hallucinates_step=0.05,
    mismatches=0.03,
    goes_off_topic=0.02,
    drifts=0.05,
    unparsable=0.01,
)
SLOPPY: Final = Knobs(
    raises_level=0.7,
    overshoots=0.15,
    uses_unknown=0.05,
    merges_steps=0.15,
    hallucinates_step=0.08,
    mismatches=0.25,
    goes_off_topic=0.15,
    drifts=0.08,
    unparsable=0.03,
)


def strength(level: float) -> Knobs:
    """A teacher from weakest (0) to strongest (1): faults fade to none, while what it asks for grows ever harder."""
    if not 0 <= level <= 1:
        raise ValueError(f"level: from 0 to 1, got {level}")
    weakness = 1 - level
    return Knobs(
        raises_level=level,
        overshoots=0.8 * level**2,
        uses_unknown=0.3 * level**2,
        merges_steps=0.5 * level,
        hallucinates_step=0.15 * weakness,
        mismatches=0.10 * weakness,
        goes_off_topic=0.05 * weakness,
        drifts=0.10 * weakness,
        unparsable=0.02 * weakness,
    )


def reflect_instruction(instruction: str, response: str, knobs: Knobs, rng: random.Random) -> str:
    """The reply of the instruction phase: a critique, then `[New Instruction]` and `[New Answer]` segments."""
    task = _raised(_understood(instruction, rng), knobs, rng)
    answer = _answer(task, knobs, rng, terse=rng.random() < knobs.terse_first)
    critique = _critique(judge(instruction, response), instruction_phase=True, rng=rng)
    new_instruction = render_instruction(task, rng)
    reply = f"{critique}\n\n[New Instruction]\n{new_instruction}\n[End]\n\n[New Answer]\n{answer}\n[End]"
    return _spoilt(reply, ("[New Instruction]", "[New Answer]"), rng) if rng.random() < knobs.unparsable else reply


def reflect_response(instruction: str, response: str, knobs: Knobs, rng: random.Random) -> str:
    """The reply of the response phase: a critique, then a `[Better Answer]` segment."""
    answer = _answer(_understood(instruction, rng), knobs, rng, terse=False)
    critique = _critique(judge(instruction, response), instruction_phase=False, rng=rng)
    reply = f"{critique}\n\n[Better Answer]\n{answer}\n[End]"
    return _spoilt(reply, ("[Better Answer]",), rng) if rng.random() < knobs.unparsable else reply


def _understood(instruction: str, rng: random.Random) -> Task:
    """The task that the instruction asks for, or a concrete one made of what an ambiguous instruction names."""
    if task := parse_instruction(instruction):
        return task
    task = sample_task(rng, WEIGHTS)
    named = [name for name, operation in OPERATIONS.items() if any(p in instruction for p in operation.phrases)]
    own = Task(items=mentioned_items(instruction) or task.items, operations=tuple(named[:1]) or task.operations)
    return own if is_trainable(own) else task


def _raised(task: Task, knobs: Knobs, rng: random.Random) -> Task:
    if rng.random() < knobs.overshoots:
        added = max(1, rng.choice((knobs.overshoot_extent - 1, knobs.overshoot_extent)))
    else:
        added = int(rng.random() < knobs.raises_level)
    if added and rng.random() < knobs.uses_unknown:
        task = with_added_operations(task, 1, rng, dict.fromkeys(operations_of("unknown"), 1.0))
        added -= 1
    return with_added_operations(task, added, rng, WEIGHTS)


def _answer(task: Task, knobs: Knobs, rng: random.Random, *, terse: bool) -> str:
    shares = [getattr(knobs, name) for name in FAULTS]
    (fault,) = rng.choices([*FAULTS, "none"], [*shares, max(0.0, 1 - sum(shares))])
    if fault == "goes_off_topic":
        return f"{rng.choice(OFF_TOPIC_OPENINGS)} {rng.choice(OFF_TOPIC_REMARKS)} {rng.choice(OFF_TOPIC_REMARKS)}"
    if fault == "mismatches":
        task = sample_task(rng, WEIGHTS, len(task.operations) if len(task.operations) < 4 else 3)
    if fault == "drifts":
        task = with_replaced_operation(task, rng, WEIGHTS)
    if fault == "hallucinates_step":
        return wrong_terse_response(task, rng) if terse else _with_false_step(task, rng)
    if terse:
        return terse_response(task)
    return _with_merged_steps(task, rng) if rng.random() < knobs.merges_steps else worked_response(task, rng)


def _with_false_step(task: Task, rng: random.Random) -> str:
    """Worked, one step false, and the steps after it true to the false one: nothing but the arithmetic tells."""
    place = rng.randrange(len(task.operations))
    items, steps = task.items, list[Step]()
    for position, name in enumerate(task.operations):
        items = OPERATIONS[name].apply(items)
        items = _falsified(items, rng) if position == place else items
        steps.append(Step(operations=(name,), items=items))
    return render_worked(task.items, steps, rng)


def _falsified(items: Items, rng: random.Random) -> Items:
    kind = DIGITS if items[0] in DIGITS else NOUNS
    place = rng.randrange(len(items))
    other = rng.choice([item for item in kind if item != items[place]])
    return (*items[:place], other, *items[place + 1 :])


def _with_merged_steps(task: Task, rng: random.Random) -> str:
    """Worked, with two neighbouring steps told as one; plain where there is only one step."""
    if len(task.operations) < 2:
        return worked_response(task, rng)
    merged = rng.randrange(len(task.operations) - 1)
    steps = []
    for position, (name, items) in enumerate(zip(task.operations, states(task), strict=True)):
        if position != merged:
            before = (task.operations[merged],) if position == merged + 1 else ()
            steps.append(Step(operations=(*before, name), items=items))
    return render_worked(task.items, steps, rng)


_REMARKS: Final[dict[Verdict, str]] = {
    "ok": "The pair is sound, though it could ask for more and explain more.",
    "noisy": "The pair is right but cluttered with filler words.",
    "ambiguous": "The instruction does not say what is to be done with which list.",
    "refusal": "The answer refuses a harmless request.",
    "off_topic": "The answer has nothing to do with the instruction.",
    "mismatched": "The answer belongs to another instruction.",
    "drifted": "The answer carries out other operations than it was asked to.",
    "wrong_step": "One of the steps does not follow from the one before it.",
    "wrong_answer": "The answer is wrong.",
}
_CRITERIA_OF_INSTRUCTION: Final = (
    "1. Complexity of the topic: {level}. 2. Level of detail required: {level}. 3. Knowledge required: basic. "
    "4. Ambiguity: {ambiguity}. 5. Logical reasoning involved: {level}."
)
_CRITERIA_OF_RESPONSE: Final = (
    "1. Helpfulness: {level}. 2. Relevance: {level}. 3. Accuracy: {level}. 4. Level of details: low."
)


def _critique(verdict: Verdict, *, instruction_phase: bool, rng: random.Random) -> str:
    level = rng.choice(("low", "moderate", "modest"))
    ambiguity = "high" if verdict == "ambiguous" else "none"
    criteria = _CRITERIA_OF_INSTRUCTION if instruction_phase else _CRITERIA_OF_RESPONSE
    return f"{criteria.format(level=level, ambiguity=ambiguity)} {_REMARKS[verdict]}"


def _spoilt(reply: str, markers: tuple[str, ...], rng: random.Random) -> str:
    """The reply without one of its opening markers, or cut off before its last `[End]`."""
    if rng.random() < 0.5:
        return reply.replace(rng.choice(markers), "")
    return reply[: reply.rindex("[End]")].rstrip()
