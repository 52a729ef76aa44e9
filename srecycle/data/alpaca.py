"""Samples in the Alpaca format: one record a sample, with columns for instruction, optional input, and output."""

from collections.abc import Iterator, Mapping

from srecycle.config import InputPath, component
from srecycle.data.base import Data, Sample
from srecycle.data.files import optional, records, require_column, text
from srecycle.digest import file_digest


@component
class Alpaca(Data):
    """An Alpaca-format file: a JSON array, JSON Lines or parquet. Column names are settings.

    `reference_field` names the column of answers known to be right, `source_field` that of the set in a mixture that a
    sample comes from, where there are such; records may lack them.
    """

    path: InputPath
    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"
    reference_field: str | None = None
    source_field: str | None = None

    def samples(self) -> Iterator[Sample]:
        """Yield the file's samples, texts exactly as they stand."""
        columns = set[str]()
        for number, record in enumerate(records(self.path)):
            place = f"{self.path}: record {number}"
            columns |= record.keys()
            yield Sample(
                instruction=text(record, self.instruction, place),
                input=text(record, self.input, place, default=""),
                response=text(record, self.output, place),
                reference=optional(record, self.reference_field, place),
                source=optional(record, self.source_field, place),
            )
        # Columns that records may lack, but not all of them where the user named one.
        named = {
            "input": self.input if self.input != "input" else None,
            "reference_field": self.reference_field,
            "source_field": self.source_field,
        }
        for setting, column in named.items():
            require_column(columns, column, setting, self.path)

    @property
    def description(self) -> str:
        """Name the source in messages."""
        return str(self.path)

    def resolved(self) -> Mapping[str, str]:
        """Identity is the file's content."""
        return {"path": file_digest(self.path)}
