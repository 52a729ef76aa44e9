"""Where a sample comes from, in a mixture: read from the column that the user names."""

import json
from pathlib import Path
from typing import Literal

import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.data.base import Data
from srecycle.data.chat import Chat
from srecycle.errors import UserError
from srecycle.stage import materialize
from srecycle.store import Store

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def _file(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text(json.dumps(records))
    return path


def _alpaca(tmp_path: Path, *sources: object) -> Path:
    records: list[dict[str, object]] = [{"instruction": "i", "output": "o", "dataset": source} for source in sources]
    return _file(tmp_path / "a.json", [*records, {"instruction": "without", "output": "o"}])


def test_source_is_read_from_its_column_and_no_part_of_the_id(tmp_path: Path) -> None:
    path = _alpaca(tmp_path, "flan", "cot", None)
    rows = Alpaca(path=path, source_field="dataset").rows()
    assert [row.source for row in rows] == ["flan", "cot", "", ""]
    assert [row.id for row in rows] == [row.id for row in Alpaca(path=path).rows()]
    assert {row.source for row in Alpaca(path=path).rows()} == {""}


@pytest.mark.parametrize("turn", ["last", "first", 1, 2])
def test_source_of_a_conversation_stands_beside_its_messages(
    tmp_path: Path, turn: Literal["last", "first"] | int
) -> None:
    path = _file(tmp_path / "c.json", [{"messages": TURNS, "dataset": "oasst"}, {"messages": TURNS}])
    rows = Chat(path=path, turn=turn, source_field="dataset").rows()
    assert [row.source for row in rows] == ["oasst", ""]


def test_source_reaches_the_rows_of_the_store(store: Store, tmp_path: Path) -> None:
    source = Source(data=Alpaca(path=_alpaca(tmp_path, "flan"), source_field="dataset"))
    assert materialize(source, store).artifact.table("rows")["source"].to_pylist() == ["flan", ""]


@pytest.mark.parametrize("kind", [Alpaca, Chat])
def test_source_column_that_no_record_has_is_refused(tmp_path: Path, kind: type[Data]) -> None:
    path = _file(tmp_path / "a.json", [{"instruction": "i", "output": "o", "messages": TURNS}])
    with pytest.raises(UserError, match=r"no column 'set' \(data.source_field\); it has instruction, messages, output"):
        kind(path=path, source_field="set").rows()  # type: ignore[call-arg]


def test_source_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="record 0: 'dataset' should be text, but is int"):
        Alpaca(path=_alpaca(tmp_path, 3), source_field="dataset").rows()
