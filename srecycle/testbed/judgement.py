"""What a pair of texts is worth, judged from the texts alone.

No label travels with a sample, so the clean share of any selected set, whoever wrote it, can be counted afterwards.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from srecycle.testbed.wording import Worked, final_answer, has_noise, parse_instruction, parse_worked
from srecycle.testbed.world import Items, Task, is_possible, states, truth

Verdict = Literal[
    "ok", "noisy", "ambiguous", "refusal", "off_topic", "mismatched", "drifted", "wrong_step", "wrong_answer"
]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

REFUSALS: Final = (
    "sorry , i can not do that .",
    "i am not able to help .",
    "no , i would rather not .",
    "sorry , that is too hard for me .",
)


def judge(instruction: str, response: str) -> Verdict:
    """The verdict on a pair, the first that applies:

    - ambiguous: the instruction asks for no definite task; refusal; off_topic: the response holds no answer;
    - mismatched: it works on another list; drifted: on the right list, by other operations, to another answer;
    - wrong_step: a step does not follow from the one before, or the answer not from the last step;
    - wrong_answer: terse and wrong; noisy: right, but a text holds noise words; ok.
    """
    task = parse_instruction(instruction)
    if task is None:
        return "ambiguous"
    if response in REFUSALS:
        return "refusal"
    answer = final_answer(response)
    if answer is None:
        return "off_topic"
    worked = parse_worked(response)
    flaw = _flaw_of_worked(task, worked) if worked else _flaw_of_terse(task, tuple(answer.split()))
    if flaw is not None:
        return flaw
    return "noisy" if has_noise(instruction) or has_noise(response) else "ok"


def _flaw_of_worked(task: Task, worked: Worked) -> Verdict | None:
    if worked.items != task.items:
        return "mismatched"
    items = worked.items
    for step in worked.steps:
        expected = _carried_out(items, step.operations)
        if expected != step.items:
            return "wrong_step"
        items = step.items
    if worked.answer != items:
        return "wrong_step"
    return None if " ".join(worked.answer) == truth(task) else "drifted"


def _flaw_of_terse(task: Task, answer: Items) -> Verdict | None:
    if " ".join(answer) == truth(task):
        return None
    return "wrong_answer" if is_within_reach(task, answer) else "mismatched"


def is_within_reach(task: Task, answer: Items) -> bool:
    """Whether at least half of an answer's items occur in the task's list or states: a slip, not another task."""
    reachable = set(task.items).union(*states(task))
    return 2 * sum(item in reachable for item in answer) >= len(answer)


def _carried_out(items: Items, operations: tuple[str, ...]) -> Items | None:
    task = Task(items=items, operations=operations)
    return states(task)[-1] if is_possible(task) else None
