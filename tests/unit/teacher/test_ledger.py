"""Every paid reply is kept, and a failure is never served as one."""

import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from srecycle.errors import UserError
from srecycle.teacher import Ledger, Reply, schema
from srecycle.teacher.ledger import ledger_key

REPLY = Reply(text="done \U0001f600", finish_reason="stop", input_tokens=3, output_tokens=5, usd=0.25, paid=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def _keep(ledger: Ledger, key: str, reply: Reply = REPLY) -> None:
    ledger.keep(key, reply, provider="p", request={"model": "m"}, seconds=1.0, attempts=1)


def test_find_kept_reply_comes_back_unpaid(path: Path) -> None:
    with Ledger(path) as ledger:
        assert ledger.find("k") is None
        _keep(ledger, "k")
    with Ledger(path) as ledger:
        assert ledger.find("k") == Reply(
            text=REPLY.text, finish_reason="stop", input_tokens=3, output_tokens=5, usd=0.25, paid=False
        )
        assert ledger.find("other") is None


def test_keep_second_reply_of_a_key_changes_nothing(path: Path) -> None:
    with Ledger(path) as ledger:
        _keep(ledger, "k")
        _keep(ledger, "k", Reply(text="other"))
        found = ledger.find("k")
    assert found is not None and found.text == REPLY.text


def test_fail_attempt_is_journalled_and_never_served(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.fail("k", attempt=1, error="Timeout", seconds=2.0)
        assert ledger.find("k") is None
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT key, attempt, error FROM failures").fetchall() == [("k", 1, "Timeout")]


def test_ledger_files_are_for_their_owner_only(path: Path) -> None:
    with Ledger(path) as ledger:
        _keep(ledger, "k")
        for file in path.parent.glob("ledger.sqlite*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_keep_from_many_threads_loses_nothing(path: Path) -> None:
    with Ledger(path) as ledger, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: _keep(ledger, f"k{n}", Reply(text=str(n))), range(100)))
        assert [getattr(ledger.find(f"k{n}"), "text", None) for n in range(100)] == [str(n) for n in range(100)]


_WRITER = """
import sys
from pathlib import Path
from srecycle.teacher import Ledger, Reply
with Ledger(Path(sys.argv[1])) as ledger:
    for n in range(60):
        ledger.keep(f"{sys.argv[2]}-{n}", Reply(text=sys.argv[2]), provider="p", request={}, seconds=0, attempts=1)
        ledger.keep("same", Reply(text=sys.argv[2]), provider="p", request={}, seconds=0, attempts=1)
"""


@pytest.mark.parametrize("shared", [False, True], ids=["one machine's disk", "a disk of several machines"])
def test_keep_from_several_processes_loses_nothing(path: Path, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "is_local", lambda path: not shared)
        Ledger(path).__exit__(None, None, None)
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    with sqlite3.connect(path) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM replies").fetchall()
        whole = connection.execute("PRAGMA integrity_check").fetchone()
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert (count, whole) == (181, ("ok",))
    assert (mode == "wal") is not shared


def test_ledger_on_a_disk_of_several_machines_never_uses_a_wal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(name: str) -> object:
        with Ledger(path) as ledger:
            _keep(ledger, "b")
            return ledger._connection.execute(f"PRAGMA {name}").fetchone()[0]

    with Ledger(path) as ledger:
        _keep(ledger, "a")
    assert asked("journal_mode") == "wal"
    monkeypatch.setattr(schema, "is_local", lambda path: False)
    assert (asked("journal_mode"), asked("synchronous")) == ("truncate", 2)
    monkeypatch.setattr(schema, "is_local", lambda path: True)
    assert asked("journal_mode") == "truncate", "a machine for which the disk is its own must do as the others"
    with Ledger(path) as ledger:
        assert ledger.find_all(["a", "b"]).keys() == {"a", "b"}


def test_ledger_in_use_as_of_one_machine_is_refused_where_others_can_write(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(path) as ledger:
        _keep(ledger, "a")
        monkeypatch.setattr(schema, "is_local", lambda path: False)
        monkeypatch.setattr(schema, "_PATIENCE", 0.1)
        with pytest.raises(UserError, match="in use as if it were of one machine: end the runs"):
            Ledger(path)


@pytest.mark.parametrize(
    ("mounts", "local"),
    [
        ([("/", "ext4")], True),
        ([("/", "ext4"), ("/data", "nfs4")], False),
        ([("/", "nfs4"), ("/data/store", "xfs"), ("/data", "nfs4")], True),
        ([("/", "ext4"), ("/data", "fuse.sshfs")], False),
        ([("/", "ext4"), ("/dat", "nfs")], True),
        ([], False),
    ],
)
def test_is_local_asks_the_nearest_mount(
    mounts: list[tuple[str, str]], local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounts]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounted)
    assert schema.is_local(Path("/data/store/ledger.sqlite")) is local


def test_ledger_key_counts_provider_and_every_field() -> None:
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.7}
    assert ledger_key("p", request) == ledger_key("p", dict(reversed(request.items())))
    others = [{**request, "temperature": 0.8}, {**request, "seed": 1}, {**request, "model": "n"}, {"model": "m"}]
    assert len({ledger_key("p", request), ledger_key("q", request), *(ledger_key("p", one) for one in others)}) == 6
