"""Exports: a run's kept rows as other tools read them, and a card that says where they are from."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datasets import load_dataset

from srecycle.data.alpaca import Alpaca
from srecycle.data.chat import Chat
from srecycle.rows import TRAINING_SCHEMA
from srecycle.store import Store, write_table
from srecycle.study.__main__ import main

LINES: list[dict[str, Any]] = [
    {"id": "a", "version": "both", "instruction": 'Say "hi" | é\n', "input": "", "response": "hi 🙂", "history": []},
    {"id": "b", "version": "response", "instruction": "Sum", "input": "1, 2", "response": "3", "history": []},
    {"id": "c", "version": "original", "instruction": "x", "input": "", "response": "y", "history": [], "kept": False},
    {
        "id": "extra:d",
        "version": "original",
        "instruction": "And now?",
        "input": "",
        "response": "Now.",
        "history": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    },
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one run, whose training set are the lines above."""
    root = Store(tmp_path / "store").root
    folder = root / "artifacts" / "assemble" / "k1"
    folder.mkdir(parents=True)
    common = {"position": 0, "label": "", "source": "", "kept": True, "reason": "", "flip_of": ""}
    write_table(folder / "training.parquet", pa.Table.from_pylist([common | line for line in LINES], TRAINING_SCHEMA))
    run = root / "runs" / "20260101-000000-000-mine-0000"
    run.mkdir(parents=True)
    keep = {"ifd_max": {"class": "srecycle.keep.limit.IFDMax", "revision": 1, "below": 0.9}}
    about = {"id": run.name, "name": "mine", "group": "", "status": "finished", "seconds": 1.0}
    about |= {"config": {"keep": keep, "assemble": {"originals": 0.5}}}
    chosen = {"overrides": ["data.path=/home/me/secret/rows.json"], "choices": {"teacher": "replay"}, "metrics": {}}
    stages = [{"label": "assemble", "stage": "assemble", "key": "k1", "how": "run", "seconds": 1.0}]
    (run / "run.json").write_text(json.dumps({**about, **chosen, "stages": stages}))
    return root


def _export(store: Path, out: Path, *options: str) -> int:
    return main(["export", "mine", "--store", str(store), "--out", str(out), *options])


def test_export_alpaca_is_read_back_as_it_was(store: Path, tmp_path: Path) -> None:
    assert _export(store, tmp_path / "out") == 0
    samples = list(Alpaca(path=tmp_path / "out" / "data.json").samples())
    kept = [line for line in LINES if line.get("kept", True)]
    assert [(one.instruction, one.input, one.response) for one in samples] == [
        (line["instruction"], line["input"], line["response"]) for line in kept
    ]
    assert json.loads((tmp_path / "out/data.json").read_text())[2]["history"] == LINES[3]["history"]


def test_export_sharegpt_is_read_back_as_conversations(store: Path, tmp_path: Path) -> None:
    assert _export(store, tmp_path / "out", "--format", "sharegpt") == 0
    samples = list(Chat(path=tmp_path / "out" / "data.json", turn="last").samples())
    assert [(one.instruction, one.response) for one in samples] == [
        ('Say "hi" | é\n', "hi 🙂"),
        ("Sum\n\n1, 2", "3"),
        ("And now?", "Now."),
    ]
    assert [(turn.role, turn.content) for turn in samples[2].history] == [("system", "s"), ("user", "u")]


def test_export_prompt_completion_is_what_trl_takes(store: Path, tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    assert _export(store, tmp_path / "out", "--format", "prompt_completion") == 0
    rows = load_dataset("json", data_files=str(tmp_path / "out/data.jsonl"), split="train", cache_dir=str(tmp_path))
    assert is_conversational(rows[0]) and len(rows) == 3
    assert rows[2]["prompt"][-1] == {"role": "user", "content": "And now?"} and len(rows[2]["prompt"]) == 3
    assert rows[1]["completion"] == [{"role": "assistant", "content": "3"}]


def test_export_card_says_where_rows_are_from_and_no_private_path(store: Path, tmp_path: Path) -> None:
    _export(store, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["configs"][0]["data_files"] == "data.json"
    assert "| assemble | `k1` |" in card and "| both | 1 |" in card and "| mixed in | 1 |" in card
    assert "data.path=rows.json" in card and "secret" not in card
    assert "| keep.ifd\\_max.below | 0.9 |" in card and "| assemble.originals | 0.5 |" in card


def test_export_of_a_name_takes_the_newest_run_with_a_training_set(store: Path, tmp_path: Path) -> None:
    older = next((store / "runs").iterdir())
    newer = store / "runs" / "20260202-000000-000-mine-0001"
    newer.mkdir()
    known = json.loads((older / "run.json").read_text())
    (newer / "run.json").write_text(json.dumps({**known, "id": newer.name, "stages": []}))
    assert _export(store, tmp_path / "out") == 0 and (tmp_path / "out/data.json").exists()


def test_export_folder_in_use_is_refused_and_left_alone(store: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    assert _export(store, tmp_path / "out") == 2
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert "is not an empty folder" in capsys.readouterr().err


def test_export_unknown_run_is_a_line(store: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["export", "yours", "--store", str(store), "--out", str(tmp_path / "out")]) == 2
    assert "has no run yours" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_export_run_that_kept_nothing_is_a_line(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = store / "artifacts/assemble/k1/training.parquet"
    file.unlink()
    write_table(file, pa.Table.from_pylist([], schema=TRAINING_SCHEMA))
    assert _export(store, tmp_path / "out") == 2
    assert "kept no row" in capsys.readouterr().err


class _Hub(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = b'{"error": "Invalid credentials"}'
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        return


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_export_hub_that_refuses_leaves_the_files_and_says_so(
    store: Path, tmp_path: Path, hub: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub)
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    assert _export(store, tmp_path / "out", "--push", "me/mine") == 2
    told = capsys.readouterr().err
    assert "--push me/mine" in told and "hf_planted" not in told and (tmp_path / "out/data.json").exists()
