"""Samples in the Alpaca format: one record a sample, with columns for instruction, optional input, and output."""

from collections.abc import Mapping
from typing import Any

from srecycle.config import component
from srecycle.data.base import Sample
from srecycle.data.files import optional, text
from srecycle.data.recordset import RecordSet


@component
class Alpaca(RecordSet):
    """Alpaca-format records: JSON arrays, JSON Lines or parquet. Column names are settings."""

    instruction: str = "instruction"
    input: str = "input"
    output: str = "output"

    def sample(self, record: dict[str, Any], place: str) -> Sample:
        """Return the record's texts exactly as they stand."""
        return Sample(
            instruction=text(record, self.instruction, place),
            input=text(record, self.input, place, default=""),
            response=text(record, self.output, place),
            reference=optional(record, self.reference_field, place),
            source=optional(record, self.source_field, place),
        )

    def columns(self) -> Mapping[str, str | None]:
        """Return the columns that records may lack, the input's among them where the user named it."""
        return {"input": self.input if self.input != "input" else None, **super().columns()}
