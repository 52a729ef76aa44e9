"""Tables that are written part after part, and read by ranges of lines or rows."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.store import ByRow, LineReader, files, write_table

SCHEMA = pa.schema([("id", pa.string()), ("number", pa.int64()), ("texts", pa.list_(pa.string()))])
COLUMNS = SCHEMA.names


@pytest.fixture(autouse=True, scope="module")
def small_groups() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "GROUP_LINES", 7)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def _table(ids: Sequence[str]) -> pa.Table:
    columns = {"id": list(ids), "number": list(range(len(ids))), "texts": [[one, "x"] for one in ids]}
    return pa.table(columns, schema=SCHEMA)


@given(count=st.integers(0, 40), cuts=st.lists(st.integers(0, 40), max_size=6))
def test_write_table_gives_the_same_bytes_however_its_lines_come(folder: Path, count: int, cuts: list[int]) -> None:
    table = _table([str(number) for number in range(count)])
    places = [0, *sorted(min(cut, count) for cut in cuts), count]
    parts = (table.slice(start, stop - start) for start, stop in itertools.pairwise(places))
    write_table(folder / "parts", parts)
    write_table(folder / "whole", table)
    assert (folder / "parts").read_bytes() == (folder / "whole").read_bytes()
    assert pq.read_table(folder / "parts").equals(table)
    assert pq.ParquetFile(folder / "whole").metadata.num_row_groups == max(1, -(-count // 7))


def test_write_table_that_fails_midway_leaves_what_was_there(tmp_path: Path) -> None:
    def failing() -> Iterator[pa.Table]:
        yield _table([str(number) for number in range(20)])
        raise ValueError("no more")

    write_table(tmp_path / "t", _table(["before"]))
    with pytest.raises(ValueError, match="no more"):
        write_table(tmp_path / "t", failing())
    assert pq.read_table(tmp_path / "t")["id"].to_pylist() == ["before"]
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


@given(count=st.integers(0, 40), ranges=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8))
def test_line_reader_returns_the_lines_of_a_range(folder: Path, count: int, ranges: list[tuple[int, int]]) -> None:
    table = _table([str(number) for number in range(count)])
    write_table(folder / "lines", table)
    reader = LineReader(folder / "lines", ("texts", "number"))
    for one, other in ranges:
        start, stop = sorted((min(one, count), min(other, count)))
        assert reader.read(start, stop).equals(table.slice(start, stop - start).select(["number", "texts"]))


def test_line_reader_that_goes_on_reads_each_group_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(folder / "once", _table([str(number) for number in range(30)]))
    read: list[int] = []
    plain = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, number: int, **given: object) -> pa.Table:
        read.append(number)
        return plain(self, number, **given)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    reader = LineReader(folder / "once", COLUMNS)
    for start in range(0, 30, 3):
        reader.read(start, start + 3)
    assert read == [0, 1, 2, 3, 4]


@given(lines=st.lists(st.integers(0, 9), max_size=40), in_order=st.booleans())
def test_by_row_returns_the_lines_of_neighbouring_rows(folder: Path, lines: list[int], in_order: bool) -> None:
    rows = sorted(lines) if in_order else lines
    table = _table([f"row {row}" for row in rows])
    write_table(folder / "rows", table)
    found = ByRow(folder / "rows", pa.array([f"row {row}" for row in range(10)]), COLUMNS)
    assert found.counts.tolist() == [rows.count(row) for row in range(10)]
    for start in range(11):
        for stop in range(start, 11):
            wanted = [(row, place) for place, row in enumerate(rows) if start <= row < stop]
            read = found.read(start, stop)
            assert read["number"].to_pylist() == [place for _, place in sorted(wanted)]
