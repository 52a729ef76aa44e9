"""Samples that stand in records: of a file, a folder of shards, or a data set of the Hugging Face hub.

What a record is made into a sample by is the subclass's. Identity is the content: of the file, of the folder's shards,
or the hub's commit with split and configuration.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

from srecycle.config import InputPath, component
from srecycle.data.base import Data, Sample
from srecycle.data.files import require_column
from srecycle.data.pinned import PinnedData


@component
class RecordSet(Data, ABC):
    """Records at `path`: a file, a folder of shards, or a hub id, like org/name, at `hub_revision`.

    `split` and, where a data set has several, `configuration` choose among what a folder or hub data set holds.
    `reference_field` names the column of answers known to be right, `source_field` that of the set in a mixture that a
    sample comes from, where there are such; records may lack them.
    """

    path: InputPath
    hub_revision: str = "main"
    configuration: str | None = None
    split: str = "train"
    reference_field: str | None = None
    source_field: str | None = None

    @abstractmethod
    def sample(self, record: dict[str, Any], place: str) -> Sample:
        """Make a record a sample; `place` is the record's in messages. Raises UserError."""

    def columns(self) -> Mapping[str, str | None]:
        """Return the columns that records may lack, but not all of them where the user named one, by their setting."""
        return {"reference_field": self.reference_field, "source_field": self.source_field}

    def samples(self) -> Iterator[Sample]:
        """Yield one sample a record."""
        seen = set[str]()
        for number, record in enumerate(self._data.records()):
            seen |= record.keys()
            yield self.sample(record, f"{self.path}: record {number}")
        for setting, column in self.columns().items():
            require_column(seen, column, setting, self.path)

    @property
    def description(self) -> str:
        """Name the source in messages."""
        return str(self.path)

    def resolved(self) -> Mapping[str, str | None]:
        """Identity is the content, or the hub's commit."""
        return self._data.resolved()

    @property
    def _data(self) -> PinnedData:
        return PinnedData(
            setting="data.path",
            path=str(self.path),
            revision=self.hub_revision,
            configuration=self.configuration,
            split=self.split,
        )
