"""The micro-world's teacher: writes replies by rule, with faults in known proportion (see srecycle/testbed/script.py)."""

import random
from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated

from pydantic import Field

from srecycle.config import component
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger
from srecycle.testbed.script import Knobs, reflect_instruction, reflect_response

Chance = Annotated[float, Field(ge=0, le=1)]


@component
class ScriptedTeacher(Teacher):
    """A teacher whose every habit is a knob (a probability, but for `overshoot_extent`, which counts operations).

    Each reply draws from a seed of its own (seed, row, phase, base), so neither order nor number of requests matters.
    """

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
    seed: int = 0

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Write one reply a request."""
        knobs = Knobs(**{field.name: getattr(self, field.name) for field in fields(Knobs)})
        write = {"instruction": reflect_instruction, "response": reflect_response}
        return [
            Reply(text=write[one.phase](one.instruction, one.response, knobs, self._chance(one))) for one in requests
        ]

    def _chance(self, request: Request) -> random.Random:
        return random.Random(f"{self.seed}|{request.row_id}|{request.phase}|{request.base}")
