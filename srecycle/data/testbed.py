"""Flawed originals of the micro-world (see srecycle/testbed): lists, operations, and answers with known faults."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from srecycle.config import component
from srecycle.data.base import Data, Sample
from srecycle.testbed.originals import originals
from srecycle.testbed.wording import parse_instruction
from srecycle.testbed.world import truth

Share = Annotated[float, Field(ge=0, le=1)]


@component
class Testbed(Data):
    """`count` generated samples; `mix` is the share of each fault ("ok" is none); samples carry labels.

    Their references are the true answers; an ambiguous instruction has none.
    """

    revision: ClassVar[int] = 2

    count: Annotated[int, Field(ge=1, le=10_000_000)] = 800
    world_seed: int = 0
    mix: dict[str, Share]

    def __post_init__(self) -> None:
        """Refuse labels that the world doesn't have, and shares that are all zero."""
        originals(0, self.world_seed, self.mix)

    def samples(self) -> Iterator[Sample]:
        """Yield the generated samples."""
        for original in originals(self.count, self.world_seed, self.mix):
            task = parse_instruction(original.instruction)
            yield Sample(
                instruction=original.instruction,
                input="",
                response=original.response,
                label=original.label,
                reference=truth(task) if task else "",
            )
