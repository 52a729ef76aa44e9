"""Samples in the Alpaca format: one record a sample, with columns for instruction, optional input, and output."""

from collections.abc import Iterator, Mapping

from srecycle.config import InputPath, component
from srecycle.data.base import Data, Sample
from srecycle.data.files import records, text
from srecycle.digest import file_digest
from srecycle.errors import UserError


@component
class Alpaca(Data):
    """An Alpaca-format file: a JSON array, JSON Lines or parquet. Column names are settings."""

    path: InputPath
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"

    def samples(self) -> Iterator[Sample]:
        """Yield the file's samples, texts exactly as they stand."""
        has_inputs, columns = False, set[str]()
        for number, record in enumerate(records(self.path)):
            place = f"{self.path}: record {number}"
            has_inputs, columns = has_inputs or self.input in record, columns | record.keys()
            yield Sample(
                instruction=text(record, self.instruction, place),
                input=text(record, self.input, place, default=""),
                response=text(record, self.output, place),
            )
        if columns and not has_inputs and self.input != "input":
            raise UserError(
                f"{self.path} has no column {self.input!r} (data.input); it has {', '.join(sorted(columns))}"
            )

    @property
    def description(self) -> str:
        """Name the source in messages."""
        return str(self.path)

    def resolved(self) -> Mapping[str, str]:
        """Identity is the file's content."""
        return {"path": file_digest(self.path)}
