"""The micro-world's teacher: writes replies by rule, with faults in known proportion (srecycle/testbed/script.py)."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

from pydantic import Field

from srecycle.config import component
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger
from srecycle.testbed.script import Knobs, reflect_instruction, reflect_response, strength

Chance = Annotated[float, Field(ge=0, le=1)]


@component
class _Scripted(Teacher, ABC):
    """Writes by rule.

    Each reply draws from a seed of its own (seed, row, phase, base, sample), so neither order nor number of requests
    matters.
    """

    seed: int = 0

    @abstractmethod
    def knobs(self) -> Knobs:
        """Return this teacher's habits."""

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Write one reply a request."""
        knobs = self.knobs()
        write = {"instruction": reflect_instruction, "response": reflect_response}
        return [
            Reply(text=write[one.phase](one.instruction, one.response, knobs, self._chance(one))) for one in requests
        ]

    def _chance(self, request: Request) -> random.Random:
        sample = f"|{request.sample}" if request.sample else ""
        return random.Random(f"{self.seed}|{request.row_id}|{request.phase}|{request.base}{sample}")


@component
class ScriptedTeacher(_Scripted):
    """A teacher whose every habit is a knob (a probability, but for `overshoot_extent`, which counts operations)."""

    raises_level: Chance = 0.7
    overshoots: Chance = 0.0
    overshoot_extent: Annotated[int, Field(ge=1)] = 3
    uses_unknown: Chance = 0.0
    terse_first: Chance = 1.0
    merges_steps: Chance = 0.0
    hallucinates_step: Chance = 0.0
    mismatches: Chance = 0.0
    goes_off_topic: Chance = 0.0
    drifts: Chance = 0.0
    unparsable: Chance = 0.0

    def __post_init__(self) -> None:
        """Refuse knobs that don't go together before any work is done."""
        self.knobs()

    def knobs(self) -> Knobs:
        """Return the knobs as configured."""
        return Knobs(**{field.name: getattr(self, field.name) for field in fields(Knobs)})


@component
class StrengthTeacher(_Scripted):
    """A teacher on the scale from weakest (0) to strongest (1): its faults fade while its questions grow harder."""

    level: Chance

    def knobs(self) -> Knobs:
        """Return the knobs of this level."""
        return strength(self.level)
