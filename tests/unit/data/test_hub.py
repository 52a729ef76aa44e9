"""Data sets of the hub: pinned, read shard by shard, whole or not at all, each failure a line."""

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.config import fingerprint, identity
from srecycle.data import pinned
from srecycle.data.alpaca import Alpaca
from srecycle.data.chat import Chat
from srecycle.errors import UserError
from srecycle.teacher.recording import hub_commit, hub_records
from tests.hub_server import TOKEN, HubServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """Serve an empty hub, with an empty cache on this side: what HF_ENDPOINT and HF_HOME would say to a new process."""
    import datasets
    from huggingface_hub import HfFileSystem, constants

    with HubServer() as server:
        template = server.url + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.url)
        _go(monkeypatch, offline=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        HfFileSystem.clear_instance_cache()
        yield server
    pinned._commit.cache_clear()


def _go(monkeypatch: pytest.MonkeyPatch, *, offline: bool) -> None:
    import datasets
    from huggingface_hub import constants

    pinned._commit.cache_clear()  # as in a new process
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)


def _samples(first: int, count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"i{n}", "input": "", "output": f"o{n}"} for n in range(first, first + count)]


def _lines(first: int, count: int) -> bytes:
    return b"".join(json.dumps(sample).encode() + b"\n" for sample in _samples(first, count))


def _parquet(first: int, count: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_samples(first, count)), stream)
    return stream.getvalue()


def _read(name: str = "org/name", **settings: Any) -> list[str]:
    return [row.instruction for row in Alpaca(path=Path(name), **settings).rows()]


def _numbers(*numbers: int) -> list[str]:
    return [f"i{number}" for number in numbers]


SHARDS = {
    "README.md": b"# A data set",
    "data/train-00000-of-00003.parquet": _parquet(0, 2),
    "data/train-00001-of-00003.parquet": _parquet(2, 1),
    "data/train-00002-of-00003.parquet": _parquet(3, 2),
    "data/test-00000-of-00001.parquet": _parquet(10, 2),
}
LAYOUTS: Mapping[str, Mapping[str, bytes]] = {
    "parquet shards": SHARDS,
    "one array": {"data.json": json.dumps(_samples(0, 5)).encode(), "LICENSE": b"free"},
    "lines named json": {"data.json": _lines(0, 5)},
    "packed lines": {"b.jsonl.gz": gzip.compress(_lines(3, 2)), "a.jsonl.gz": gzip.compress(_lines(0, 3))},
    "zstd lines": {"train.jsonl.zst": pa.compress(_lines(0, 5), codec="zstd", asbytes=True)},
    "folders by split": {"train/1.jsonl": _lines(3, 2), "train/0.jsonl": _lines(0, 3), "test/0.jsonl": _lines(9, 1)},
    "card": {
        "README.md": b"---\nconfigs:\n- config_name: all\n  data_files: [z.jsonl, a.jsonl]\n---\n",
        "z.jsonl": _lines(0, 2),
        "a.jsonl": _lines(2, 3),
        "other.jsonl": _lines(9, 1),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hub_data_set_of_any_layout_gives_its_rows_in_order(hub: HubServer, layout: str) -> None:
    hub.add("org/name", LAYOUTS[layout])
    assert _read() == _numbers(0, 1, 2, 3, 4)


def test_hub_split_and_configuration_choose(hub: HubServer) -> None:
    card = b"---\nconfigs:\n- config_name: a\n  data_files: a/*.jsonl\n- config_name: b\n  data_files: b/*.jsonl\n---\n"
    hub.add("org/two", {"README.md": card, "a/1.jsonl": _lines(0, 1), "b/1.jsonl": _lines(1, 2)})
    assert _read("org/two", configuration="b") == _numbers(1, 2)
    hub.add("org/name", SHARDS)
    assert _read(split="test") == _numbers(10, 11)
    settings: list[dict[str, Any]] = [{}, {"split": "test"}, {"configuration": "default"}, {"hub_revision": "main"}]
    keys = [fingerprint(identity(Alpaca(path=Path("org/name"), **one))) for one in settings]
    assert len(set(keys)) == 3 and keys[0] == keys[3]


def test_hub_chat_is_read_as_alpaca_is(hub: HubServer) -> None:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    hub.add("org/chat", {"chat.jsonl": json.dumps({"messages": messages}).encode()})
    (row,) = Chat(path=Path("org/chat")).rows()
    assert (row.instruction, row.response) == ("q", "a")


def test_hub_commit_is_the_identity_and_what_is_read(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub.add("org/name", {"a.jsonl": _lines(0, 1)})
    data = Alpaca(path=Path("org/name"))
    assert identity(data)["path"] == "org/name" and identity(data)["hub_revision"] == first
    second = hub.add("org/name", {"a.jsonl": _lines(1, 1)})
    assert [row.instruction for row in data.rows()] == ["i0"], "the commit that the identity told"
    _go(monkeypatch, offline=False)
    assert identity(data)["hub_revision"] == second and _read() == ["i1"]
    assert _read(hub_revision=first) == ["i0"]
    hub.add("org/name", {"a/b.jsonl": _lines(2, 1)}, branch="refs/convert/parquet")
    assert _read(hub_revision="refs/convert/parquet") == ["i2"]


def test_hub_shards_come_one_after_another_and_once(hub: HubServer) -> None:
    hub.add("org/name", SHARDS)
    data = Alpaca(path=Path("org/name"))
    samples = data.samples()
    next(samples)
    assert [file for file in hub.downloads if "train" in file] == ["data/train-00000-of-00003.parquet"]
    assert len(list(samples)) == 4 and len(data.rows()) == 5
    wanted = sorted(file for file in SHARDS if "train" in file)
    assert [file for file in hub.downloads if file.endswith(".parquet")] == wanted


def test_hub_data_set_that_was_read_is_read_offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add("org/name", SHARDS)
    assert _read() == _numbers(0, 1, 2, 3, 4)
    _go(monkeypatch, offline=True)
    asked = hub.asked
    assert identity(Alpaca(path=Path("org/name")))["hub_revision"] == commit
    assert _read() == _numbers(0, 1, 2, 3, 4) and hub.asked == asked
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet can't be downloaded .*LocalEntryNotFound"):
        _read(split="test")
    with pytest.raises(UserError, match=f"org/name at {commit} is not in the local hub cache, and the hub is off"):
        _read(configuration="default")


@pytest.mark.parametrize("content", ["", "{", "5", "[1]"])
def test_hub_list_of_files_that_was_damaged_is_asked_for_again(hub: HubServer, tmp_path: Path, content: str) -> None:
    hub.add("org/name", SHARDS)
    assert len(_read()) == 5
    (memo,) = (tmp_path / "cache" / "srecycle" / "hub").iterdir()
    whole = memo.read_text()
    memo.write_text(content)
    assert _read() == _numbers(0, 1, 2, 3, 4) and memo.read_text() == whole


def test_hub_data_set_cached_in_part_is_not_taken_for_whole(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/name", SHARDS)
    next(Alpaca(path=Path("org/name")).samples())
    _go(monkeypatch, offline=True)
    with pytest.raises(UserError, match=r"data\.path=org/name: data/train-00001-of-00003\.parquet can't be downloaded"):
        _read()


def test_hub_download_cut_once_goes_on(hub: HubServer) -> None:
    hub.add("org/name", SHARDS)
    hub.cuts["data/train-00001-of-00003.parquet"] = 1
    assert _read() == _numbers(0, 1, 2, 3, 4)
    assert hub.downloads.count("data/train-00001-of-00003.parquet") == 2


def test_hub_download_cut_for_good_is_a_line_and_a_retry_goes_on(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", {"a.jsonl": _lines(0, 3), "b.jsonl": _lines(3, 500)})
    hub.cuts["b.jsonl"] = 10_000
    monkeypatch.setattr("time.sleep", lambda _: None)  # the hub's client waits before it goes on
    got = []
    with pytest.raises(UserError, match=r"^data\.path=org/name: b\.jsonl can't be downloaded .* run it again") as cut:
        got.extend(Alpaca(path=Path("org/name")).samples())
    assert "\n" not in str(cut.value) and len(got) == 3, "no record of the file that didn't come whole"
    hub.cuts.clear()
    assert len(_read()) == 503 and hub.downloads.count("a.jsonl") == 1


def _assert_refused(said: str, **settings: Any) -> None:
    with pytest.raises(UserError, match=said) as refused:
        _read(**settings)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 600


CARD = b"---\nconfigs:\n- config_name: a\n  data_files: %s\n- config_name: b\n  data_files: a.jsonl\n---\n"
REFUSED: Mapping[str, tuple[Mapping[str, bytes], Mapping[str, str], str]] = {
    "split": (
        SHARDS,
        {"split": "validation"},
        r"split validation can't be loaded: choose one of its own, train, test$",
    ),
    "slice": (SHARDS, {"split": "train[:5]"}, r"the split train\[:5\] can't be loaded"),
    "revision": (SHARDS, {"hub_revision": "v7"}, r"has no revision v7 on the hub \(data\.hub_revision\)"),
    "commit": (SHARDS, {"hub_revision": "1" * 40}, "can't be loaded: .*Revision '1111"),
    "configuration": (
        SHARDS,
        {"configuration": "c"},
        r"'c' not found\. Available: \['default'\]; .*data\.configuration$",
    ),
    "configuration of several": (
        {"README.md": CARD % b"a.jsonl", "a.jsonl": _lines(0, 1)},
        {},
        r"pick one among the available configs: \['a', 'b'\]; choose one by data\.configuration$",
    ),
    "columns": ({"a.jsonl": b'{"prompt": "p"}'}, {}, "org/name: record 0 has no column 'instruction'; it has 'prompt'"),
    "broken": ({"a.jsonl": b"{"}, {}, r"a\.jsonl: line 1 is not JSON"),
    "csv": ({"a.csv": b"a,b"}, {}, r"a\.csv is of another kind than .*data\.hub_revision=refs/convert/parquet$"),
    "script": ({"name.py": b"raise SystemExit", "a.jsonl": b"{}"}, {}, "scripts are no longer .*refs/convert/parquet$"),
    "nothing": ({"README.md": b"nothing"}, {}, "can't be loaded: .*any data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hub_data_set_that_cannot_be_read_is_a_line(hub: HubServer, case: str) -> None:
    files, settings, said = REFUSED[case]
    hub.add("org/name", files)
    _assert_refused(f"^data\\.path=org/name.*{said}" if case not in ("columns", "broken") else said, **settings)


def test_hub_card_that_names_files_which_no_commit_pins_is_refused(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(_lines(7, 1))
    hub.add("org/other", {"a.jsonl": _lines(8, 1)})
    for place, said in {
        f"{hub.url}/datasets/org/name/resolve/main/a.jsonl": "names a file that lies elsewhere, hf://.*@main/a",
        "hf://datasets/org/other@main/a.jsonl": "Data files don't belong to org/name",
        str(tmp_path / "own.jsonl"): "Data files don't belong to org/name",
        "../other/a.jsonl": "Unable to find",
    }.items():
        hub.add("org/name", {"README.md": CARD % place.encode(), "a.jsonl": _lines(0, 1)})
        pinned._commit.cache_clear()
        _assert_refused(f"^data\\.path=org/name.*{said}", configuration="a")


def test_hub_unknown_data_set_is_a_line(hub: HubServer) -> None:
    _assert_refused("org/none is no file or folder here, and the hub shows no data set of that name", name="org/none")


@pytest.mark.parametrize("token", [None, "hf_" + "b" * 34])
def test_hub_gated_data_set_needs_a_token_which_nothing_tells(
    hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    token: str | None,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.add("org/name", SHARDS)
    hub.gated.add("org/name")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(
        UserError, match=r"is gated: accept its terms at .*/datasets/org/name, then set HF_TOKEN"
    ) as shut:
        _read()
    assert "hf_b" not in str(shut.value) and "hf_b" not in "".join(capfd.readouterr())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert _read() == _numbers(0, 1, 2, 3, 4)
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


def test_hub_that_is_off_or_away_is_a_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    _go(monkeypatch, offline=True)
    _assert_refused(r"data\.path=org/name is neither a file or folder nor in the local hub cache; the hub is off$")
    _go(monkeypatch, offline=False)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    _assert_refused("no file or folder here, and the hub can't be reached at http://127.0.0.1:9: check the path, or")


def test_hub_settings_of_a_local_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(_lines(0, 1))
    for settings in ({"split": "test"}, {"configuration": "a"}, {"hub_revision": "v1"}):
        ((name, value),) = settings.items()
        with pytest.raises(UserError, match=rf"^data\.{name}={value} means nothing here: data\.path=.* but a file$"):
            identity(Alpaca(path=path, **settings))


def test_hub_id_that_is_a_folder_here_is_the_folder(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/name", SHARDS)
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "a.jsonl").write_bytes(_lines(7, 1))
    monkeypatch.chdir(tmp_path)
    assert _read() == ["i7"] and hub.asked == 0


def test_hub_records_of_a_teacher_are_pinned_as_data_is(hub: HubServer) -> None:
    commit = hub.add("org/name", SHARDS)
    assert hub_commit("org/name", "main") == commit
    hub.add("org/name", {"a.jsonl": b""})
    assert list(hub_records("org/name", commit, "train")) == _samples(0, 5)
    with pytest.raises(UserError, match=r"^teacher\.path=org/name: the split reflected can't be loaded: choose one of"):
        list(hub_records("org/name", commit, "reflected"))


def test_hub_command_reads_from_where_hf_endpoint_says(tmp_path: Path) -> None:
    with HubServer() as server:
        commit = server.add("org/name", SHARDS)
        script = (
            "from srecycle.data.alpaca import Alpaca\nfrom srecycle.config import identity\n"
            "one = Alpaca(path='org/name')\nprint(identity(one)['hub_revision'], len(one.rows()))"
        )
        env = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        env |= {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path)}
        told = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
        )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == [commit, "5"]
