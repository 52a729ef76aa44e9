"""What a source of samples is, and the stage that reads it.

In: files or a generator. Out: `rows.parquet`, one line a sample, in source order. Identity: the content of the source
and the fields that choose among its samples; the path itself is not.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.rows import ROW_SCHEMA, Row, Turn, content_id, numbered, to_table
from srecycle.stage import Metrics, Stage, Work


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as its source has it, before it has an id. `later_messages` counts those behind the chosen turn."""

    instruction: str
    input: str
    response: str
    history: tuple[Turn, ...] = ()
    label: str = ""
    reference: str = ""
    source: str = ""
    later_messages: int = 0


@component
class Data(Component, ABC):
    """A source of samples.

    `positions` restricts it to these 0-based places, `limit` to a random subset of that size drawn with `seed`; both
    keep source order. Positions stay those of the whole source.
    """

    limit: Annotated[int, Field(ge=1)] | None = None
    positions: tuple[Annotated[int, Field(ge=0)], ...] = ()
    seed: int = 0

    @abstractmethod
    def samples(self) -> Iterator[Sample]:
        """Yield every sample of the source, in order. Raises UserError on content that it can't read."""

    @property
    def description(self) -> str:
        """Name the source in messages."""
        return type(self).__name__.lower()

    def chosen(self) -> list[tuple[int, Sample]]:
        """Return the chosen samples with their positions. Raises UserError where there are none."""
        samples = list(enumerate(self.samples()))
        if not samples:
            raise UserError(f"{self.description} holds no samples: check data.path and the file's format")
        if self.positions:
            wanted = set(self.positions)
            if beyond := sorted(position for position in wanted if position >= len(samples)):
                raise UserError(
                    f"data.positions names {beyond[0]}, but {self.description} ends at position {len(samples) - 1}"
                )
            samples = [(position, sample) for position, sample in samples if position in wanted]
        if self.limit is not None and self.limit < len(samples):
            samples = sorted(random.Random(self.seed).sample(samples, self.limit), key=lambda pair: pair[0])
        return samples

    def rows(self) -> list[Row]:
        """Return the chosen samples as rows with ids. Raises UserError where there are none."""
        return numbered_rows(self.chosen())


def numbered_rows(samples: Sequence[tuple[int, Sample]]) -> list[Row]:
    """Return samples, with their positions, as rows with ids."""
    ids = numbered(content_id(one.instruction, one.input, one.response, one.history) for _, one in samples)
    return [
        Row(
            id=identifier,
            position=position,
            instruction=sample.instruction,
            input=sample.input,
            response=sample.response,
            history=sample.history,
            label=sample.label,
            reference=sample.reference,
            source=sample.source,
        )
        for identifier, (position, sample) in zip(ids, samples, strict=True)
    ]


@component
class Source(Stage):
    """Reads the source into `rows.parquet`."""

    revision: ClassVar[int] = 3

    data: Data

    @property
    def name(self) -> str:
        """The stage's name."""
        return "source"

    def run(self, work: Work) -> Metrics:
        """Read, number, and write the rows."""
        samples = self.data.chosen()
        rows = numbered_rows(samples)
        if not any(row.instruction.strip() and row.response.strip() for row in rows):
            raise UserError(
                f"none of the {len(rows)} samples of {self.data.description} has both an instruction and a response: "
                "check the field names, and data.turn where it is set"
            )
        work.write("rows", to_table(rows, ROW_SCHEMA))
        later = [sample.later_messages for _, sample in samples if sample.later_messages]
        if later:
            say(
                f"  {len(later)} of {len(rows)} conversations go on behind the chosen turn (data.turn): their "
                f"{sum(later)} later messages are left out"
            )
        return {
            "rows": len(rows),
            "duplicates": sum("-" in row.id for row in rows),
            "empty_responses": sum(not row.response.strip() for row in rows),
            "empty_instructions": sum(not row.instruction.strip() for row in rows),
            "references": sum(bool(row.reference.strip()) for row in rows),
            "later_messages_left_out": sum(later),
        }
