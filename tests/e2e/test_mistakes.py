"""Users' mistakes of every class that `test_command.py` has not: a line of what, where and what to do, and exit code 2.

The command runs in this process, which is faster than in one of its own.
"""

import gc
import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hydra.core.hydra_config import HydraConfig

from srecycle import __main__ as command_line
from srecycle.compose import PACKAGE
from srecycle.report import callback
from tests.faulty_server import FaultyServer

pytestmark = pytest.mark.e2e

MODEL = PACKAGE / "testbed" / "bases" / "weak"
COMMIT = "0123456789012345678901234567890123456789"
ROWS = [{"instruction": "Name a colour.", "output": "Red."}]
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Return a function that runs `srecycle` with arguments, and tells its exit code and what it said to its user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_failed", [])
    monkeypatch.setattr(command_line, "_at_work", [])
    monkeypatch.setattr(callback, "failed", [])
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("TQDM_DISABLE", "1")

    def run(*arguments: str) -> tuple[int, list[str]]:
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", ["srecycle", "tracker=none", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        return int(ended.value.code or 0), capsys.readouterr().err.strip().splitlines()

    yield run
    gc.enable()
    signal.signal(signal.SIGTERM, handler)
    HydraConfig.instance().cfg = None


def _refused(ended: tuple[int, list[str]], *said: str) -> None:
    code, lines = ended
    assert code == 2, lines
    assert [line.startswith("srecycle: error: ") for line in lines].count(True) == 1, lines
    assert not any("Traceback" in line for line in lines)
    assert lines[-1].startswith("srecycle: error: ")
    for part in said:
        assert part in lines[-1]


def _rows(path: Path, content: bytes = b"") -> str:
    path.write_bytes(content or json.dumps(ROWS).encode())
    return f"data.path={path}"


SOURCE = ("data=alpaca", "teacher=scripted", "student=testbed_weak", "until=source")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.json", b'[{"instruction": "a", "output": "caf\xe9"}]', ["rows.json", "not UTF-8", "iconv"]),
        ("rows.jsonl", b'{"instruction": "a", "output": "caf\xe9"}\n', ["rows.jsonl: line 1", "not UTF-8", "iconv"]),
        ("rows.parquet", b"PAR1 torn", ["rows.parquet", "not a readable parquet file"]),
        ("rows.json", b'[{"instruction": "a", "output"', ["rows.json: line 1", "is not JSON"]),
    ],
)
def test_command_with_a_file_that_cannot_be_read_names_it(
    command: Command, tmp_path: Path, name: str, content: bytes, said: list[str]
) -> None:
    _refused(command(*SOURCE, _rows(tmp_path / name, content)), *said)


def test_command_with_samples_that_stand_twice_gives_each_an_id(command: Command, tmp_path: Path) -> None:
    code, lines = command(*SOURCE, _rows(tmp_path / "rows.json", json.dumps(ROWS * 3).encode()))
    assert code == 0, lines
    (table,) = (tmp_path / "store").glob("artifacts/source/*/rows.parquet")
    assert len(set(pq.read_table(table)["id"].to_pylist())) == 3


def test_command_with_a_server_that_cannot_be_reached_says_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted")
    with FaultyServer() as server:
        address = server.url
    teacher = ("teacher=openai", "teacher.model=m", f"teacher.base_url={address}", "teacher.attempts=1")
    ended = command(*teacher, "data.count=2", "until=reflect_instruction")
    _refused(ended, "unreachable", "run again", "teacher.keep_failed=true")
    assert not any("planted" in line for line in ended[1])


def test_command_for_a_gpu_where_there_is_none_says_what_to_use(command: Command) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    for device in ("cuda", "cuda:3"):
        _refused(command(f"student.device={device}", "data.count=2"), f"student.device={device}", "auto or cpu")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="the extra qlora is installed")
def test_command_that_wants_an_extra_says_how_to_install_it(command: Command) -> None:
    _refused(command("trainer=qlora", "data.count=2"), "trainer=qlora", "pip install bitsandbytes", "trainer=lora")


@pytest.mark.parametrize("place", ["file", "/dev/null/store"])
def test_command_with_a_store_that_cannot_be_made_says_what_to_set(
    command: Command, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    _refused(command(f"store={place}", "data.count=2"), place, "can't be created", "SRECYCLE_STORE")


@pytest.mark.parametrize("torn", ["model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_command_with_a_model_that_was_copied_in_part_says_to_copy_it_again(
    command: Command, tmp_path: Path, torn: str
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(MODEL, copied)
    (copied / torn).write_bytes((MODEL / torn).read_bytes()[:100])
    ended = command(f"student.path={copied}", "teacher=scripted", "data.count=2", "until=likelihoods")
    _refused(ended, str(copied), "can't be loaded", "only in part, do that again")
    asked = list((tmp_path / "store").glob("artifacts/reflect_instruction/*/candidates.parquet"))
    assert len(asked) == (torn != "model.safetensors"), "weights are looked at before the teacher is asked"


def test_command_with_an_interrupted_download_says_how_to_complete_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--org--name"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    shutil.copy(MODEL / "config.json", cached / "snapshots" / COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    ended = command("student.path=org/name", "teacher=scripted", "data.count=2", "until=likelihoods")
    _refused(ended, "org/name", "can't be loaded", f"hf download org/name --revision {COMMIT}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer=lorra"], ["there is no trainer/lorra", "lora"]),
        (["~mode"], ["mode", "leave out ~mode"]),
        (["~seed", "data.seed=1"], ["assemble.seed can't be filled in", "'seed' not found"]),
        (["~group"], ["group", "leave out ~group"]),
        (["+teacher._partial_=true"], ["teacher._partial_ is refused"]),
        (["assemble._recursive_=1"], ["assemble._recursive_"]),
        (["teacher._target_=srecycle.teacher.nothing.X"], ["teacher._target_=srecycle.teacher.nothing.X is refused"]),
        (["name=${nowhere}"], ["nowhere"]),
        (["name='${'"], ["name='${'", "${KEY}"]),
        (["teacher=-1"], ["name of an option"]),
        (["student.path=" + "m/" * 1500], ["is not a folder", "hub id"]),
        (["data.count=9999999999999999999"], ["data.count", "10000000"]),
        (["+=x"], ["can't be composed", "--help"]),
        (["embedder=[{a:1}]"], ["can't be composed", "--help"]),
        (["y" * 300 + "=1"], ["can't be composed", "too long"]),
        (["name=" + "[" * 300 + "]" * 300], ["can't be composed", "--help"]),
        (["trainer.rank=" + "x" * 5000], ["trainer.rank=", "(5002 characters)"]),
    ],
)
def test_command_with_an_odd_override_is_refused_in_a_line(
    command: Command, arguments: list[str], said: list[str]
) -> None:
    code, lines = command(*arguments, "mode=plan") if "~mode" not in arguments else command(*arguments)
    _refused((code, lines), *said)
    assert len(lines) == 1
