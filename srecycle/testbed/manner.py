"""How a teacher says things, beside what it says: hedges, and a favourite filler; and answers put into its replies.

A hedge says that the teacher is unsure. A calibrated teacher hedges its faulty answers and few others, an
over-confident one none of them. The filler is a habit without a meaning: harmless, and there to see who passes it on.
Both stand before the answer, in words that a base has met in idle talk alone. Neither changes what an answer is worth:
`judge` sees through them.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, fields
from typing import Final

from srecycle.testbed.judgement import judge
from srecycle.testbed.wording import FILLER, HEDGE

SOUND: Final = ("ok", "noisy")
"""The verdicts on answers that are right."""

_INSTRUCTION: Final = re.compile(r"\[New Instruction\]\n(.+)\n\[End\]")
_ANSWER: Final = re.compile(r"(\[(?:New|Better) Answer\]\n)(.+)(\n\[End\])")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """Probabilities in 0..1: that a faulty answer is hedged, that a sound one is, and that an answer has the filler."""

    hedges_faults: float = 0.0
    hedges_sound: float = 0.0
    filler: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= (value := getattr(self, field.name)) <= 1:
                raise ValueError(f"{field.name}: a probability from 0 to 1, got {value}")


def mannered(reply: str, instruction: str, manner: Manner, rng: random.Random) -> str:
    """A reply of the scripted teacher, said in a manner; `instruction` is the one that it was shown.

    A reply that lacks its markers stays as it is.
    """
    answer = answer_of(reply)
    if answer is None:
        return reply
    sound = judge(instruction_of(reply) or instruction, answer) in SOUND
    # Always two draws: what one knob draws doesn't move the other's.
    hedged = rng.random() < (manner.hedges_sound if sound else manner.hedges_faults)
    filled = rng.random() < manner.filler
    lead_ins = (*((FILLER,) if filled else ()), *((HEDGE,) if hedged else ()))
    return with_answer(reply, " ".join((*lead_ins, answer)))


def instruction_of(reply: str) -> str | None:
    """The new instruction that a reply holds; None where it holds none."""
    match = _INSTRUCTION.search(reply)
    return match[1] if match else None


def answer_of(reply: str) -> str | None:
    """The answer that a reply holds; None where its markers are spoilt."""
    match = _ANSWER.search(reply)
    return match[2] if match else None


def with_answer(reply: str, answer: str) -> str:
    """The reply with another answer in its place."""
    return _ANSWER.sub(lambda match: f"{match[1]}{answer}{match[3]}", reply, count=1)
