"""An artifact is complete when its record stands, and not before."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from srecycle.digest import fresh_digest
from srecycle.errors import UserError
from srecycle.store import RECORD, Artifact, Store, write_json, write_table
from srecycle.store.artifacts import inspected

KEY = "ab" * 16
TABLE = pa.table({"x": [1, 2, 3]})


def _made(store: Store, key: str = KEY, **metrics: Any) -> Artifact:
    folder, _, _ = store.begin("source", key)
    write_table(folder / "rows.parquet", TABLE)
    return store.commit("source", key, {"class": "Source", "n": 1}, metrics, {"seconds": time.time()})


def test_find_finished_artifact_returns_record_and_tables(store: Store) -> None:
    _made(store, rows=3)
    found = store.find("source", KEY)
    assert found is not None
    assert (found.key, found.metrics, found.table("rows")) == (KEY, {"rows": 3}, TABLE)
    assert set(found.record) == {"format", "stage", "key", "payload", "files", "metrics", "digest"}
    assert list(found.record["files"]) == ["rows.parquet"]
    assert not store.scratch("source", KEY).exists()


def test_find_folder_without_record_is_a_miss(store: Store) -> None:
    _made(store)
    (store.folder("source", KEY) / RECORD).unlink()
    assert store.find("source", KEY) is None


@pytest.mark.parametrize("content", ["", "{", '{"format": 1,'])
def test_find_half_written_record_is_a_miss(store: Store, content: str) -> None:
    _made(store)
    (store.folder("source", KEY) / RECORD).write_text(content)
    assert store.find("source", KEY) is None


def test_find_truncated_or_missing_file_is_a_miss(store: Store) -> None:
    file = _made(store).folder / "rows.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert store.find("source", KEY) is None
    file.write_bytes(whole)
    assert store.find("source", KEY) is not None
    file.unlink()
    assert store.find("source", KEY) is None


def test_find_edited_file_of_the_same_size_is_named_and_a_miss(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _made(store).folder / "rows.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:10] + bytes([whole[10] ^ 1]) + whole[11:])
    assert store.find("source", KEY) is None
    assert store.find("source", KEY) is None
    assert capsys.readouterr().err.count(f"{file} is not what was recorded") == 1
    file.write_bytes(whole)
    assert store.find("source", KEY) is not None


@pytest.mark.parametrize("large", [1, 1 << 21])
def test_find_edited_file_with_its_old_time_and_size_is_found_by_verify(store: Store, large: int) -> None:
    folder, _, _ = store.begin("source", KEY)
    (folder / "weights").write_bytes(b"a" * large)
    store.commit("source", KEY, {}, {}, {})
    stat = (folder / "weights").stat()
    (folder / "weights").write_bytes(b"b" * large)
    os.utime(folder / "weights", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert "is not what was recorded" in inspected(folder, fresh_digest)[1]


@pytest.mark.parametrize("change", [{"metrics": {"rows": 4}}, {"payload": {}}, {"files": {}}, {"key": "cd" * 16}])
def test_find_edited_record_is_a_miss(store: Store, change: dict[str, Any]) -> None:
    file = _made(store, rows=3).folder / RECORD
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert store.find("source", KEY) is None


@pytest.mark.parametrize(
    "content", ["[]", "null", "{}", '"text"', '{"format": 1, "key": "x", "files": [], "digest": ""}']
)
def test_find_record_that_is_no_record_is_a_miss(store: Store, content: str) -> None:
    _made(store)
    (store.folder("source", KEY) / RECORD).write_text(content)
    assert store.find("source", KEY) is None


def test_find_artifact_copied_under_another_key_is_a_miss(store: Store) -> None:
    shutil.copytree(_made(store).folder, store.folder("source", "cd" * 16))
    assert store.find("source", "cd" * 16) is None


def test_commit_record_with_any_metric_is_found_again(store: Store) -> None:
    metrics = {
        "share": 0.1 + 0.2,
        "tiny": 5e-324,
        "count": 3,
        "none": None,
        "list": [1, 2.0, "ü"],
        "deep": {"b": 1, "a": True},
    }
    _made(store, **metrics)
    found = store.find("source", KEY)
    assert found is not None and found.metrics == metrics


def test_find_newer_format_is_refused(store: Store) -> None:
    file = _made(store).folder / RECORD
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match=r"format 99.*update srecycle"):
        store.find("source", KEY)


def test_commit_same_work_gives_the_same_record_bytes(tmp_path: Path) -> None:
    first, second = (_made(Store(tmp_path / name), share=0.5, b=1, a=2) for name in "ab")
    assert (first.folder / RECORD).read_bytes() == (second.folder / RECORD).read_bytes()
    assert first.provenance["seconds"] < second.provenance["seconds"]


def test_provenance_lost_is_empty(store: Store) -> None:
    made = _made(store)
    (made.folder / "provenance.json").unlink()
    assert store.find("source", KEY) is not None
    assert made.provenance == {}


def test_begin_removes_half_written_files_and_keeps_scratch(store: Store) -> None:
    folder, scratch, resumed = store.begin("source", KEY)
    assert not resumed
    (folder / ".rows.parquet.77").write_text("half")
    (folder / "adapter").mkdir()
    (folder / "adapter" / "x").write_text("half")
    (scratch / "shard").write_text("whole")
    folder, scratch, resumed = store.begin("source", KEY)
    assert resumed
    assert list(folder.iterdir()) == [scratch]
    assert (scratch / "shard").read_text() == "whole"


def test_commit_scratch_files_are_no_part_of_the_record(store: Store) -> None:
    _, scratch, _ = store.begin("source", KEY)
    (scratch / "shard").write_text("x")
    made = store.commit("source", KEY, {}, {}, {})
    assert made.record["files"] == {}


def test_records_are_yielded_newest_first_and_broken_ones_left_out(store: Store) -> None:
    for age, key in enumerate(("a", "b", "c")):
        record = _made(store, key).folder / RECORD
        os.utime(record, (1000 - age, 1000 - age))
    (store.folder("source", "b") / RECORD).write_text("{")
    assert [record["key"] for record in store.records("source")] == ["a", "c"]
    assert list(store.records("no such stage")) == []


def test_store_is_for_its_owner_only(tmp_path: Path) -> None:
    assert stat.S_IMODE(Store(tmp_path / "new").root.stat().st_mode) == 0o700


def test_store_in_the_way_of_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be created.*SRECYCLE_STORE"):
        Store(tmp_path / "file" / "store")


def test_write_json_not_a_number_is_refused_and_the_old_file_stands(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


def test_write_table_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "a", TABLE)
    write_table(tmp_path / "b", pa.table({"x": [1, 2, 3]}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


_HOLDER = """
import sys, time
from pathlib import Path
from srecycle.store import Store
with Store(Path(sys.argv[1])).lock("source", sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_of_a_killed_process_blocks_nobody(store: Store) -> None:
    command = [sys.executable, "-c", _HOLDER, str(store.root), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        taken = threading.Event()

        def take() -> None:
            with store.lock("source", KEY):
                taken.set()

        waiting = threading.Thread(target=take, daemon=True)
        waiting.start()
        assert not taken.wait(0.3), "the lock did not exclude another process"
        holder.send_signal(signal.SIGKILL)
        assert taken.wait(10), "the dead owner's lock still blocks"
        waiting.join()


def test_lock_of_another_key_is_free(store: Store) -> None:
    with store.lock("source", KEY), store.lock("source", "cd" * 16):
        pass
