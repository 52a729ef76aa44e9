"""A task that no student of the micro-world has met: one operation, rightly answered, with no fault among the samples.

"trade_ends" occurs in no pre-training text, in no original, and (but for a teacher that is made to) in no rewrite.
"""

import random
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from srecycle.config import component
from srecycle.data.base import Data, Sample
from srecycle.testbed.wording import render_instruction, terse_response
from srecycle.testbed.world import operations_of, sample_task, truth

(NEW,) = operations_of("unknown")


@component
class TestbedTask(Data):
    """`count` samples of the operation that is new to all, drawn with `world_seed`."""

    count: Annotated[int, Field(ge=1)] = 200
    world_seed: int = 0

    def samples(self) -> Iterator[Sample]:
        """Yield the generated samples."""
        rng = random.Random(f"new task {self.world_seed}")
        for _ in range(self.count):
            task = sample_task(rng, {NEW: 1.0})
            yield Sample(
                instruction=render_instruction(task, rng),
                input="",
                response=terse_response(task),
                label="ok",
                reference=truth(task),
            )
