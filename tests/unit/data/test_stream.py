"""Sources that are read as streams: a part at a time, once, or twice where a limit has to know the length."""

import random
from collections.abc import Iterator
from typing import ClassVar

import pytest

from srecycle.config import component
from srecycle.data import Data, Source
from srecycle.data import base as data_base
from srecycle.data.base import Sample
from srecycle.errors import UserError
from srecycle.stage import materialize
from srecycle.store import Store, files

COUNT = 50


@component
class Counting(Data):
    """Samples that tell how often and how far they were read."""

    read: ClassVar[list[int]] = []

    def samples(self) -> Iterator[Sample]:
        """Yield samples, some of them twice."""
        self.read.append(0)
        for number in range(COUNT):
            self.read[-1] = number + 1
            yield Sample(instruction=f"i{number % 40}", input="", response=f"o{number % 40}")


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    Counting.read.clear()
    monkeypatch.setattr(files, "GROUP_LINES", 8)
    monkeypatch.setattr(data_base, "GROUP_LINES", 8)


def test_source_is_written_a_part_after_the_other_while_it_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []
    plain = data_base.to_table

    def told(records: object, schema: object) -> object:
        table = plain(records, schema)  # type: ignore[arg-type]
        written.append((len(table), Counting.read[-1]))
        return table

    monkeypatch.setattr(data_base, "to_table", told)
    made = materialize(Source(data=Counting()), store).artifact
    assert [lines for lines, _ in written] == [8] * 6 + [2] and len(Counting.read) == 1
    assert all(read <= 8 * (number + 1) + 1 for number, (_, read) in enumerate(written))
    assert made.metrics["rows"] == COUNT and made.metrics["duplicates"] == COUNT - 40
    ids = made.table("rows")["id"].to_pylist()
    assert len(set(ids)) == COUNT and [one.partition("-")[0] for one in ids[40:]] == ids[:10]
    assert made.table("rows")["position"].to_pylist() == list(range(COUNT))


@pytest.mark.parametrize("positions", [(), (3, 7, 7, 21, 30, 49)])
@pytest.mark.parametrize("limit", [1, 4, 5, 49, 50, 60])
def test_chosen_limit_draws_as_from_a_list(positions: tuple[int, ...], limit: int) -> None:
    wanted = sorted(set(positions)) or list(range(COUNT))
    drawn = sorted(random.Random(5).sample(wanted, limit)) if limit < len(wanted) else wanted
    chosen = [position for position, _ in Counting(positions=positions, limit=limit, seed=5).chosen()]
    assert chosen == drawn
    assert len(Counting.read) == (1 if positions else 2)


def test_chosen_position_beyond_the_end_is_told_with_the_end(store: Store) -> None:
    with pytest.raises(UserError, match=r"data\.positions names 50, but counting ends at position 49"):
        materialize(Source(data=Counting(positions=(1, 50))), store)
    assert not list((store.root / "artifacts" / "source").glob("*/rows.parquet"))
