"""Keys of stages, and the three ways in which one is come by."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from srecycle.config import component, fingerprint, runtime
from srecycle.stage import Metrics, Stage, Work, materialize
from srecycle.store import RECORD, Store


@component
class Count(Stage):
    """Writes the numbers below `to`, and notes each run in `diary`; `fails` stops it half-way."""

    to: int = 3
    diary: Path = runtime()
    fails: bool = runtime(False)

    @property
    def name(self) -> str:
        return "count"

    def run(self, work: Work) -> Metrics:
        with self.diary.open("a") as stream:
            stream.write(f"{sorted(path.name for path in work.scratch.iterdir())}\n")
        (work.scratch / "half").write_text("done")
        (work.folder / "half-written").write_text("")
        if self.fails:
            raise RuntimeError("killed")
        (work.folder / "half-written").unlink()
        work.write("numbers", pa.table({"n": list(range(self.to))}))
        work.notes["budget"] = 7
        return {"count": self.to}


@component
class Double(Stage):
    inputs_of: tuple[Count, ...]
    other: Count | None = None

    @property
    def name(self) -> str:
        return "double"

    def run(self, work: Work) -> Metrics:
        numbers = work.read(self.inputs_of[0]).table("numbers")["n"].to_pylist()
        work.write("numbers", pa.table({"n": [2 * n for n in numbers]}))
        return {"sum": 2 * sum(numbers)}


def _lines(diary: Path) -> list[str]:
    return diary.read_text().splitlines()


def test_materialize_first_runs_and_then_hits(store: Store, tmp_path: Path) -> None:
    stage = Count(diary=tmp_path / "diary")
    first = materialize(stage, store)
    second = materialize(Count(diary=tmp_path / "diary"), store)
    assert (first.how, second.how) == ("run", "hit")
    assert first.artifact.metrics == second.artifact.metrics == {"count": 3}
    assert _lines(tmp_path / "diary") == ["[]"]
    assert second.artifact.table("numbers")["n"].to_pylist() == [0, 1, 2]


def test_materialize_after_a_failure_resumes_to_the_same_bytes(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        materialize(Count(diary=tmp_path / "diary", fails=True), store)
    assert store.find("count", Count(diary=tmp_path).key) is None
    resumed = materialize(Count(diary=tmp_path / "diary"), store)
    whole = materialize(Count(diary=tmp_path / "diary"), Store(tmp_path / "other"))
    assert (resumed.how, whole.how) == ("resume", "run")
    assert _lines(tmp_path / "diary") == ["[]", "['half']", "[]"]
    for name in (RECORD, "numbers.parquet"):
        assert (resumed.artifact.folder / name).read_bytes() == (whole.artifact.folder / name).read_bytes()
    assert sorted(path.name for path in resumed.artifact.folder.iterdir()) == [
        "numbers.parquet",
        "provenance.json",
        RECORD,
    ]
    assert resumed.artifact.provenance["resumed"] and not whole.artifact.provenance["resumed"]


def test_materialize_clears_what_a_kill_just_after_the_record_left(store: Store, tmp_path: Path) -> None:
    stage = Count(diary=tmp_path / "diary")
    materialize(stage, store)
    scratch = store.scratch(stage.name, stage.key)
    scratch.mkdir()
    (scratch / "half").write_text("done")
    assert materialize(stage, store).how == "hit"
    assert not scratch.exists()


def test_materialize_damaged_artifact_is_made_again(store: Store, tmp_path: Path) -> None:
    stage = Count(diary=tmp_path / "diary")
    file = materialize(stage, store).artifact.folder / "numbers.parquet"
    file.write_bytes(b"")
    assert materialize(stage, store).how == "run"
    assert materialize(stage, store).how == "hit"


def test_provenance_holds_notes_and_no_environment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-to-be-written")
    made = materialize(Count(diary=tmp_path / "diary"), store).artifact
    assert made.provenance["notes"] == {"budget": 7}
    assert {"argv", "commit", "dirty", "python", "packages", "machine", "started", "seconds"} <= set(made.provenance)
    written = b"".join(path.read_bytes() for path in store.root.rglob("*") if path.is_file())
    assert b"sk-not-to-be-written" not in written


def test_key_changes_with_inputs_and_not_with_runtime_fields(tmp_path: Path) -> None:
    one, other = Count(diary=tmp_path / "a"), Count(diary=tmp_path / "b", fails=True)
    assert one.key == other.key == fingerprint(one.payload)
    assert Double(inputs_of=(one,)).key == Double(inputs_of=(other,)).key
    changed = Count(to=4, diary=tmp_path)
    assert Double(inputs_of=(changed,)).key != Double(inputs_of=(one,)).key
    assert Double(inputs_of=(one,)).payload["inputs_of"] == [{"stage": "count", "key": one.key}]


def test_planned_number_is_decided_once_while_the_work_lasts(store: Store, tmp_path: Path) -> None:
    decided = iter([64, 2048, 3])
    (tmp_path / "scratch").mkdir()
    first, resumed = (Work(store=store, folder=tmp_path, scratch=tmp_path / "scratch") for _ in range(2))
    assert first.planned("batch_tokens", lambda: next(decided)) == 64
    assert resumed.planned("batch_tokens", lambda: next(decided)) == 64
    assert resumed.planned("other", lambda: next(decided)) == 2048
    (tmp_path / "elsewhere").mkdir()
    anew = Work(store=store, folder=tmp_path, scratch=tmp_path / "elsewhere")
    assert anew.planned("batch_tokens", lambda: next(decided)) == 3


def test_inputs_are_the_stages_in_the_fields(tmp_path: Path) -> None:
    one, other = Count(diary=tmp_path), Count(to=9, diary=tmp_path)
    assert Double(inputs_of=(one,), other=other).inputs == (one, other)
    assert one.inputs == ()


def test_materialize_reads_the_artifacts_of_its_inputs(store: Store, tmp_path: Path) -> None:
    one = Count(diary=tmp_path / "diary")
    double = Double(inputs_of=(one,))
    with pytest.raises(AssertionError, match="read before it was made"):
        materialize(double, store)
    materialize(one, store)
    assert materialize(double, store).artifact.metrics == {"sum": 6}


_MAKER = """
import sys, time
from pathlib import Path
import pyarrow as pa
from srecycle.config import component, runtime
from srecycle.stage import Stage, materialize
from srecycle.store import Store

@component
class Slow(Stage):
    diary: Path = runtime()
    name = "slow"
    def run(self, work):
        with self.diary.open("a") as stream:
            stream.write("ran\\n")
        time.sleep(1)
        work.write("t", pa.table({"x": [1]}))
        return {}

print(materialize(Slow(diary=Path(sys.argv[2])), Store(Path(sys.argv[1]))).how)
"""


def test_materialize_in_two_processes_works_once(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MAKER, str(store.root), str(tmp_path / "diary")]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = sorted(maker.communicate(timeout=30)[0].strip() for maker in makers)
    assert answers == ["hit", "run"]
    assert _lines(tmp_path / "diary") == ["ran"]
