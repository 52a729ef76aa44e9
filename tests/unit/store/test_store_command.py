"""`srecycle-store`: what is there, what is broken, and what no run needs."""

import json
import os
import time
from pathlib import Path

import filelock
import pytest

from srecycle.store import RECORD, Store, write_json
from srecycle.store.__main__ import main
from srecycle.store.unneeded import SECONDS_A_DAY, unneeded


def _made(store: Store, stage: str, key: str, *inputs: str, days: float = 30) -> Path:
    folder, _, _ = store.begin(stage, key)
    (folder / "rows").write_text(f"rows of {key}")
    store.commit(stage, key, {"rows": [{"stage": "source", "key": one} for one in inputs]}, {}, {})
    return _aged(folder, days)


def _aged(folder: Path, days: float) -> Path:
    moment = time.time() - days * SECONDS_A_DAY
    for path in folder.rglob("*"):
        os.utime(path, (moment, moment))
    return folder


def _ran(store: Store, name: str, *keys: str) -> Path:
    folder = store.root / "runs" / name
    folder.mkdir()
    write_json(folder / "run.json", {"stages": [{"stage": "any", "key": key} for key in keys]})
    return folder


def _keys(store: Store, days: float = 7) -> set[str]:
    return {one.key for one in unneeded(store, days)}


def test_unneeded_what_a_run_or_its_inputs_name_is_needed(store: Store) -> None:
    _made(store, "source", "a")
    _made(store, "select", "b", "a")
    _made(store, "train", "c", "b")
    _made(store, "train", "lonely", "b")
    assert _keys(store) == {"a", "b", "c", "lonely"}
    _ran(store, "run", "c")
    assert _keys(store) == {"lonely"}


def test_unneeded_what_is_young_is_left_alone(store: Store) -> None:
    _made(store, "source", "old", days=8)
    _made(store, "source", "young", days=6)
    assert _keys(store) == {"old"}
    assert _keys(store, days=0) == {"old", "young"}


def test_unneeded_what_a_killed_run_was_to_make_is_needed(store: Store) -> None:
    _made(store, "source", "a")
    folder, scratch, _ = store.begin("likelihoods", "b")
    (scratch / "shard").write_text("hours of work")
    _aged(folder, 30)
    assert _keys(store) == {"a", "b"}
    run = store.root / "runs" / "killed"
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"event": "run", "keys": {"source": "a", "likelihoods": "b"}}) + "\n")
    assert _keys(store) == set()


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
@pytest.mark.parametrize("text", ['{"stages": [{"key"', "[1]\n", "{}\n", '{"stages": [1], "keys": [1]}\n', "\udcff"])
def test_gc_deletes_nothing_where_a_run_does_not_tell_what_it_needs(
    store: Store, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = _made(store, "source", "lonely")
    (store.root / "runs" / "cut").mkdir()
    (store.root / "runs" / "cut" / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert main(["gc", "--delete", "--store", str(store.root)]) == 2
    assert f"cut/{name} is cut or no record" in capsys.readouterr().err and (lonely / RECORD).exists()


def test_gc_deletes_nothing_where_a_needed_artifact_does_not_tell_what_it_was_made_from(store: Store) -> None:
    lonely, needed = _made(store, "source", "lonely"), _made(store, "train", "needed")
    _ran(store, "run", "needed")
    (needed / RECORD).write_text('{"payload": ')
    assert main(["gc", "--delete", "--store", str(store.root)]) == 2
    assert (lonely / RECORD).exists()


def test_unneeded_a_run_killed_before_it_told_anything(store: Store) -> None:
    _made(store, "source", "a")
    (store.root / "runs" / "young").mkdir()
    (store.root / "runs" / "young" / "metrics.jsonl").touch()
    assert _keys(store) == {"a"}


def test_gc_says_first_and_deletes_only_when_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    needed, lonely = _made(store, "source", "needed"), _made(store, "train", "lonely")
    _ran(store, "run", "needed")
    assert main(["gc", "--store", str(store.root)]) == 0
    told = capsys.readouterr()
    assert "lonely" in told.out and "needed" not in told.out and "--delete deletes them" in told.err
    assert lonely.exists()
    assert main(["gc", "--delete", "--store", str(store.root)]) == 0
    assert not lonely.exists() and (needed / RECORD).exists()
    assert "1 artifacts deleted" in capsys.readouterr().err


def test_gc_what_is_being_made_just_now_stays(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _made(store, "source", "busy")
    with filelock.FileLock(store.lock_file("busy")):
        main(["gc", "--delete", "--store", str(store.root)])
    assert (folder / RECORD).exists() and "0 artifacts deleted" in (said := capsys.readouterr().err)
    assert "1 are being made just now" in said


def test_verify_names_what_is_broken(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _made(store, "source", "whole")
    assert main(["verify", "--store", str(store.root)]) == 0
    file = _made(store, "source", "broken") / "rows"
    stat = file.stat()
    file.write_text("rows of brOken")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert main(["verify", "--store", str(store.root)]) == 1
    assert f"source broken: {file} is not what was recorded" in capsys.readouterr().err


def test_list_counts_by_stage_and_shows_one(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    _made(store, "source", "a")
    _made(store, "source", "b")
    store.begin("train", "c")
    assert main(["list", "--store", str(store.root)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:] if line] == [["source", "2", "0"], ["train", "0", "1"], ["all", "2", "1"]]
    assert main(["list", "train", "--store", str(store.root)]) == 0
    assert "unfinished" in (shown := capsys.readouterr().out) and "source" not in shown
    assert main(["list", "sauce", "--store", str(store.root)]) == 2
    assert "no artifact of sauce; it has some of source, train" in capsys.readouterr().err


def test_command_on_no_store_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--store", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"srecycle-store: error: {tmp_path} is no store of srecycle: give --store PATH, or set SRECYCLE_STORE\n"
    )
