"""An end-to-end reflection against a server that nobody here wrote: `transformers serve` with a tiny random model.

Its replies are noise: they can't be read, and must be kept, counted and paid for once all the same.
"""

import importlib.util
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from srecycle.stage import Made, materialize
from srecycle.store import Store
from tests.e2e.conftest import Make

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS, TOKENS = 4, 16
_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "


@pytest.fixture(scope="module")
def model(tiny_models: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model that has a chat template."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    shutil.copytree(tiny_models["llama"], folder)
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the model; return the base URL."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("transformers")
    options = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32")
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [command, "serve", str(model), *options],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        limit = time.monotonic() + 120
        while not _is_up(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None and time.monotonic() < limit, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _reflect(make: Make, model: Path, url: str, *overrides: str) -> dict[str, Made]:
    experiment = make(
        f"data.count={ROWS}",
        "teacher=openai",
        f"teacher.model={model}",
        f"teacher.base_url={url}",
        f"teacher.max_tokens={TOKENS}",
        "teacher.usd_per_million_input_tokens=1",
        "teacher.usd_per_million_output_tokens=2",
        "teacher.budget_usd=10",
        "teacher.concurrency=2",
        *overrides,
    )
    store = Store(experiment.store)
    wanted = ("source", "reflect_instruction", "reflect_response")
    return {name: materialize(stage, store) for name, stage in experiment.plan().items() if name in wanted}


def test_reflection_by_a_served_model_is_kept_counted_and_paid_once(
    make: Make, model: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    first = _reflect(make, model, url)
    made = first["reflect_instruction"].artifact
    table = pq.read_table(made.folder / "candidates.parquet")
    statuses = Counter(table["status"].to_pylist())
    assert statuses.total() == ROWS and statuses["ok"] == 0, "noise was read as a reflection"
    assert statuses == {name: made.metrics[f"instruction/{name}"] for name in statuses}
    replies = table["reply"].to_pylist()
    assert all(replies) and len(set(replies)) > 1, "raw replies are kept, and are the model's"
    assert set(table["finish_reason"].to_pylist()) <= {"length", "stop"}
    assert made.provenance["notes"]["calls"]["paid"] >= ROWS
    with sqlite3.connect(tmp_path / "store" / "ledger.sqlite") as connection:
        lines = connection.execute("SELECT reply, input_tokens, output_tokens, usd, model FROM replies").fetchall()
        assert set(replies) <= {line[0] for line in lines}
        for _, input_tokens, output_tokens, usd, name in lines:
            assert input_tokens > 100 and 0 < output_tokens <= TOKENS and name == str(model)
            assert usd == pytest.approx((input_tokens + 2 * output_tokens) / 1e6)

    # Made again from nothing but the ledger: no call, no cost, the same bytes.
    bills = {name: one.artifact.provenance["notes"]["calls"] for name, one in first.items() if name != "source"}
    shutil.rmtree(tmp_path / "store" / "artifacts")
    second = _reflect(make, model, "http://127.0.0.1:9/v1", f"teacher.provider={url.split('/')[2]}")
    for name in ("reflect_instruction", "reflect_response"):
        one, other = first[name].artifact, second[name].artifact
        assert one.record == other.record and second[name].how == "run"
        paid, found = bills[name], other.provenance["notes"]["calls"]
        assert (found["paid"], found["usd_paid"]) == (0, 0) and paid["usd_paid"] > 0
        assert [found["usd"], paid["usd_paid"]] == pytest.approx([paid["usd"]] * 2)
    with sqlite3.connect(tmp_path / "store" / "ledger.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM replies").fetchone() == (len(lines),)
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
