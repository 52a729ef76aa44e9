"""Whatever a file holds, its records come, or one line that says where what is wrong."""

import gzip
import io
import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.data.files import records, text
from srecycle.errors import UserError

DEEP = 100_000

GOOD = b'{"a": 1}\n'
ZSTD = pa.compress(GOOD, codec="zstd", asbytes=True)
BAD: dict[str, tuple[str, bytes, str]] = {
    "nested too deep": ("a.jsonl", GOOD + b"[" * DEEP + b"]" * DEEP, r"a\.jsonl: line 2 is JSON that is nested too"),
    "object nested too deep": (
        "a.jsonl",
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        r"a\.jsonl: line 1 is JSON that is nest",
    ),
    "array nested too deep": (
        "a.json",
        b'[\n{"a": "[[[[\\"[[["},\n{"a": ' + b"[" * DEEP + b"\n" + b"]" * DEEP + b"}]",
        r"a\.json: line 3 is JSON that is nested too deep",
    ),
    "long number": ("a.jsonl", GOOD + b'{"a": ' + b"9" * 5000 + b"}", r"a\.jsonl: line 2: .*4300 digits"),
    "long number in array": ("a.json", b'[{"a": ' + b"9" * 5000 + b"}]", r"a\.json: .*4300 digits"),
    "name twice": ("a.jsonl", GOOD + b'{"a": 1, "b": 2, "a": 3}', r"a\.jsonl: line 2: an object has 'a' twice"),
    "name twice within": ("a.json", b'[{"a": {"b": 2, "b": 3}}]', r"a\.json: an object has 'b' twice \('b'\)"),
    "utf-16": ("a.jsonl", '{"a": 1}'.encode("utf-16"), "line 1 is not UTF-8 text"),
    "gzip": ("a.jsonl", gzip.compress(GOOD), r"a\.jsonl is packed by gzip: unpack it, or name it .jsonl.gz"),
    "gzip that is cut": ("a.json.gz", gzip.compress(GOOD)[:15], r"a\.json\.gz can't be read: Truncated compressed"),
    "gzip that is none": ("a.jsonl.gz", GOOD, r"a\.jsonl\.gz can't be read: .*incorrect header"),
    "gzip of no json": ("a.jsonl.gz", gzip.compress(GOOD + b"{"), r"a\.jsonl\.gz: line 2 is not JSON"),
    "zstd": ("a.json", ZSTD, r"a\.json is packed by zstd: unpack it"),
    "zstd that is cut": ("a.jsonl.zst", ZSTD[:-4], r"a\.jsonl\.zst can't be read: Truncated compressed"),
    "parquet in gzip": ("a.parquet.gz", gzip.compress(b"PAR1"), "is not a readable parquet file"),
    "zip": ("a.json", b"PK\x03\x04....", "is a zip archive"),
    "parquet by another name": ("a.json", b"PAR1....", "is a parquet file: name it .parquet"),
    "lines by another name": ("a.json", GOOD + b"x", r"line 2, column 1 is not JSON: Extra data \(JSON Lines\?"),
    "broken lines named json": ("a.json", GOOD * 2 + b"{", r"a\.json: line 3 is not JSON"),
    "nothing": ("a.json", b"", "is empty"),
    "mark alone": ("a.json", b"\xef\xbb\xbf", "is empty"),
    "zero bytes": ("a.jsonl", b"\x00\x00", "line 1 is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_records_of_a_broken_file_are_a_line(tmp_path: Path, case: str) -> None:
    name, content, said = BAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as refused:
        list(records(tmp_path / name))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500 + len(str(tmp_path))


def test_records_name_the_setting_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for setting, named in (("judge.paths", "judge.paths="), (None, "")):
        with pytest.raises(UserError, match=rf"^{named}{tmp_path}/none\.json is not a file"):
            list(records(tmp_path / "none.json", setting))
        with pytest.raises(UserError, match=rf"^{named}{tmp_path}/{'a' * 300} can't be read: File name too long"):
            list(records(tmp_path / ("a" * 300), setting))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_records_that_may_not_be_read_are_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "a.jsonl").chmod(stat.S_IWUSR)
    with pytest.raises(UserError, match="can't be read: Permission denied"):
        list(records(tmp_path / "a.jsonl"))


def test_records_keep_what_json_may_hold(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf[{"a": NaN, "b": 1e999, "c": "\\ud83d", "d": "\\ud83d\\ude00"}]')
    (one,) = records(tmp_path / "a.json")
    assert math.isnan(one["a"]) and one["b"] == math.inf and one["d"] == "\N{GRINNING FACE}"
    with pytest.raises(UserError, match="'c' holds half of a character"):
        text(one, "c", "here")


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return stream.getvalue()


def _unreadable() -> pa.Table:
    broken = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    return pa.table({"a": broken})


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: _parquet(pa.table({"a": ["x" * 100] * 100}))[:-200], "is not a readable parquet file"),
        (lambda: _parquet(pa.table([["x"], ["y"]], names=["a", "a"])), "has the column 'a' twice"),
        (lambda: _parquet(_unreadable()), "is not a readable parquet file"),
        (lambda: _parquet(pa.table({"a": pa.array([2**62], pa.timestamp("us"))})), "is not a readable parquet file"),
        (lambda: gzip.compress(_parquet(pa.table({"a": ["x"]}))), "is not a readable parquet file"),
    ],
)
def test_records_of_a_broken_parquet_file_are_a_line(tmp_path: Path, made: Callable[[], bytes], said: str) -> None:
    (tmp_path / "a.parquet").write_bytes(made())
    with pytest.raises(UserError, match=said) as refused:
        list(records(tmp_path / "a.parquet"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "lines.json"])
def test_records_are_the_same_packed_and_by_either_name(tmp_path: Path, name: str, suffix: str) -> None:
    made = [{"a": "1", "b": "\u2028 {"}, {"a": "2" * 100_000, "b": None}]
    written = json.dumps(made) if name == "a.json" else "\n".join(map(json.dumps, made))
    content = b"\xef\xbb\xbf" + written.encode()
    # Packers append: one part behind the other is one text.
    packed = {"": bytes, ".gz": gzip.compress, ".zst": lambda part: pa.compress(part, codec="zstd", asbytes=True)}[
        suffix
    ]
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(packed(content[:50]) + packed(content[50:]))
    assert list(records(path)) == made


def test_records_of_an_object_named_json_are_still_refused(tmp_path: Path) -> None:
    for content in ('{"data": []}', '{"data": [\n{"a": 1}\n]}\n', '{\n"a": 1}\n{'):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(UserError, match=r"holds a JSON dict: expected an array|Extra data"):
            list(records(tmp_path / "a.json"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(st.characters()), JSON, max_size=3), max_size=4)


@given(made=RECORDS, lines=st.booleans(), ascii=st.booleans(), mark=st.booleans())
def test_records_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, made: Any, lines: bool, ascii: bool, mark: bool
) -> None:
    path = tmp_path_factory.mktemp("r") / ("a.jsonl" if lines else "a.json")
    written = "\n".join(json.dumps(one, ensure_ascii=ascii) for one in made) if lines else json.dumps(made)
    path.write_bytes(b"\xef\xbb\xbf" * mark + written.encode("utf-8", "surrogatepass" if ascii else "replace"))
    if not ascii and lines:
        made = json.loads(json.dumps(made).encode("utf-8", "replace"))
    assert json.dumps(list(records(path))) == json.dumps(made)


@given(
    content=st.binary(max_size=60) | st.text('[]{},:"\\u0d8ea1. \n-eNaItfry', max_size=60).map(str.encode),
    name=st.sampled_from(["a.json", "a.jsonl", "a.parquet", "a.json.gz", "a.jsonl.zst"]),
)
def test_records_of_noise_come_or_are_a_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("r") / name
    path.write_bytes(content)
    try:
        assert all(isinstance(one, dict) for one in records(path))
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
