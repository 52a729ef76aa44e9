"""Folders of shards: read as the hub would read them, identified by what they hold."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.config import fingerprint, identity
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.errors import UserError
from srecycle.stage import materialize
from srecycle.store import Store


def _lines(first: int, count: int) -> bytes:
    samples = ({"instruction": f"i{n}", "output": f"o{n}"} for n in range(first, first + count))
    return b"".join(json.dumps(sample).encode() + b"\n" for sample in samples)


def _folder(place: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def _read(folder: Path, **settings: Any) -> list[str]:
    return [row.instruction.removeprefix("i") for row in Alpaca(path=folder, **settings).rows()]


def _key(folder: Path, **settings: Any) -> str:
    return fingerprint(identity(Alpaca(path=folder, **settings)))


SHARDS = {"b.jsonl": _lines(3, 2), "a.jsonl": _lines(0, 3), "notes.txt": b"no records", ".hidden.jsonl": b"{"}
SPLITS = {
    "data/train-00001-of-00002.jsonl": _lines(3, 2),
    "data/train-00000-of-00002.jsonl": _lines(0, 3),
    "data/test-00000-of-00001.jsonl": _lines(9, 1),
    "README.md": b"# A data set",
}


@pytest.mark.parametrize("files", [SHARDS, SPLITS])
def test_folder_of_shards_is_read_in_sorted_order(tmp_path: Path, files: Mapping[str, bytes]) -> None:
    assert _read(_folder(tmp_path / "set", files)) == list("01234")


def test_folder_of_many_kinds_of_packing_is_read(tmp_path: Path) -> None:
    files = {"00.jsonl": _lines(0, 1), "01.jsonl.gz": gzip.compress(_lines(1, 2)), "02.jsonl": _lines(3, 1)}
    assert _read(_folder(tmp_path / "set", files)) == list("0123")


def test_folder_of_parquet_gives_positions_over_all_shards(store: Store, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(3):
        table = pa.table({"instruction": [f"i{number}a", f"i{number}b"], "output": ["o", "o"]})
        pq.write_table(table, tmp_path / "set" / f"part-{number}.parquet")
    data = Alpaca(path=tmp_path / "set", positions=(1, 4))
    rows = materialize(Source(data=data), store).artifact.table("rows")
    assert rows["instruction"].to_pylist() == ["i0b", "i2a"] and rows["position"].to_pylist() == [1, 4]


def test_folder_split_is_chosen_and_an_unknown_one_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "set", SPLITS)
    assert _read(folder, split="test") == ["9"]
    with pytest.raises(UserError, match=r"set: the split dev can't be loaded: choose one of its own, train, test$"):
        _read(folder, split="dev")


def test_folder_identity_is_what_is_read_and_in_which_order(tmp_path: Path) -> None:
    first = _folder(tmp_path / "first", SPLITS)
    same = _folder(tmp_path / "same", SPLITS | {"README.md": b"# Other words"})
    assert _key(first) == _key(same) != _key(first, split="test")
    names = [name for name in SPLITS if "train" in name]
    swapped = _folder(tmp_path / "swapped", SPLITS | {names[0]: SPLITS[names[1]], names[1]: SPLITS[names[0]]})
    assert _read(swapped) == list("34012") and _key(swapped) != _key(first)
    (same / names[0]).write_bytes(_lines(5, 2))
    assert _key(same) != _key(first)


CARD = "---\nconfigs:\n- config_name: a\n  data_files: %s\n- config_name: b\n  data_files: [z.jsonl, y.jsonl]\n---\n"


def test_folder_card_tells_its_configurations(tmp_path: Path) -> None:
    files = {"README.md": (CARD % "x.jsonl").encode(), "x.jsonl": _lines(0, 1), "y.jsonl": _lines(1, 1)}
    folder = _folder(tmp_path / "set", files | {"z.jsonl": _lines(2, 1)})
    assert _read(folder, configuration="a") == ["0"] and _read(folder, configuration="b") == ["2", "1"]
    with pytest.raises(UserError, match=r"available configs: \['a', 'b'\]; choose one by data\.configuration$"):
        _read(folder)


REFUSED: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "stray": (
        {"train.jsonl": _lines(0, 1), "more.jsonl": _lines(1, 1)},
        r"more\.jsonl belongs to none .* found, train",
    ),
    "stray of another kind": ({"a.jsonl": b"", "b.jsonl": b"", "c.parquet": b""}, r"c\.parquet belongs to none"),
    "csv": ({"a.csv": b"a,b"}, r"a\.csv is of another kind than parquet, JSON lines or JSON arrays \("),
    "empty": ({}, "can't be loaded: .*doesn't contain any data files"),
    "code": ({"set.py": b"raise SystemExit", "a.jsonl": _lines(0, 1)}, "can't be loaded: .*scripts are no longer supp"),
    "cut shard": ({"a.jsonl": _lines(0, 2), "b.jsonl": _lines(2, 2)[:-9]}, r"b\.jsonl: line 2 is not JSON"),
    "elsewhere": (
        {"README.md": (CARD % "../own.jsonl").encode(), "a.jsonl": b""},
        r"lies elsewhere, .*/set/\.\./own\.jsonl",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_folder_that_cannot_be_read_whole_is_a_line(tmp_path: Path, case: str) -> None:
    (tmp_path / "own.jsonl").write_bytes(_lines(7, 1))
    (tmp_path / "set").mkdir()
    files, said = REFUSED[case]
    settings = {"configuration": "a"} if "README.md" in files else {}
    with pytest.raises(UserError, match=said) as refused:
        _read(_folder(tmp_path / "set", files), **settings)
    assert "\n" not in str(refused.value)


def test_folder_card_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(_lines(7, 1))
    card = (CARD % (tmp_path / "own.jsonl")).encode()
    folder = _folder(tmp_path / "set", {"README.md": card, "a.jsonl": _lines(0, 1)})
    with pytest.raises(UserError, match=r"names a file that lies elsewhere, .*/own\.jsonl: it is not read"):
        _key(folder, configuration="a")


def test_folder_takes_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.hub_revision=v1 means nothing here: .* is no hub id but a folder"):
        _key(_folder(tmp_path / "set", SHARDS), hub_revision="v1")
