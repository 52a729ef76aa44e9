"""What a source of samples is, and the stage that reads it.

In: files or a generator. Out: `rows.parquet`, one line a sample, in source order. Identity: the content of the source
and the fields that choose among its samples; the path itself is not.
"""

import itertools
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pyarrow as pa
from pydantic import Field

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.progress import metered, say
from srecycle.rows import ROW_SCHEMA, Row, Turn, content_id, numbered, to_table
from srecycle.stage import Metrics, Stage, Work
from srecycle.store import GROUP_LINES


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

    def chosen(self) -> Iterator[tuple[int, Sample]]:
        """Yield the chosen samples with their positions. Raises UserError, in the end, where there are none.

        The source is read once, and where a `limit` has to know its length once more before that.
        """
        wanted, drawn = set(self.positions), self._drawn()
        count = place = 0
        for position, sample in enumerate(self.samples()):
            count += 1
            if wanted and position not in wanted:
                continue
            if drawn is None or place in drawn:
                yield position, sample
            place += 1
        if not count:
            raise UserError(f"{self.description} holds no samples: check data.path and the file's format")
        if beyond := sorted(position for position in wanted if position >= count):
            raise UserError(f"data.positions names {beyond[0]}, but {self.description} ends at position {count - 1}")

    def _drawn(self) -> set[int] | None:
        """Return which of the wanted samples the limit leaves, by their place; None where it leaves all."""
        if self.limit is None:
            return None
        count = len(set(self.positions)) or sum(1 for _ in self.samples())
        return set(random.Random(self.seed).sample(range(count), self.limit)) if self.limit < count else None

    def rows(self) -> list[Row]:
        """Return the chosen samples as rows with ids. Raises UserError where there are none."""
        return [row for row, _ in as_rows(self.chosen())]


def as_rows(samples: Iterable[tuple[int, Sample]]) -> Iterator[tuple[Row, Sample]]:
    """Yield samples, with their positions, as rows with ids, beside themselves."""
    for_ids, for_rows = itertools.tee(samples)
    ids = numbered(content_id(one.instruction, one.input, one.response, one.history) for _, one in for_ids)
    for identifier, (position, sample) in zip(ids, for_rows, strict=True):
        row = Row(
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
        yield row, sample


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
        """Read, number, and write the rows, a part after the other."""
        seen: Counter[str] = Counter()
        work.write("rows", self._tables(seen))
        if not seen["whole"]:
            raise UserError(
                f"none of the {seen['rows']} samples of {self.data.description} has both an instruction and a "
                "response: check the field names, and data.turn where it is set"
            )
        if seen["go_on"]:
            say(
                f"  {seen['go_on']} of {seen['rows']} conversations go on behind the chosen turn (data.turn): their "
                f"{seen['later_messages_left_out']} later messages are left out"
            )
        return {name: seen[name] for name in _COUNTED}

    def _tables(self, seen: "Counter[str]") -> Iterator[pa.Table]:
        """Yield the rows as tables, and count what is in them."""
        pairs = as_rows(self.data.chosen())
        with metered(self.name, None) as meter:
            while part := list(itertools.islice(pairs, GROUP_LINES)):
                for row, sample in part:
                    seen["rows"] += 1
                    seen["whole"] += bool(row.instruction.strip() and row.response.strip())
                    seen["duplicates"] += "-" in row.id
                    seen["empty_responses"] += not row.response.strip()
                    seen["empty_instructions"] += not row.instruction.strip()
                    seen["references"] += bool(row.reference.strip())
                    seen["later_messages_left_out"] += sample.later_messages
                    seen["go_on"] += bool(sample.later_messages)
                yield to_table((row for row, _ in part), ROW_SCHEMA)
                meter.advance(len(part))


_COUNTED = ("rows", "duplicates", "empty_responses", "empty_instructions", "references", "later_messages_left_out")
