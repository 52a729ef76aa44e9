"""The content-addressed store: one directory an artifact, complete when its `record.json` stands.

    <root>/artifacts/<stage>/<key>/   the stage's files, record.json, provenance.json; .work/ while it is being made
    <root>/runs/<run>/                what one run did: run.json, metrics.jsonl, the tracker's files, the report
    <root>/locks/                     one lock file a key, held by the process that makes it
    <root>/ledger.sqlite              every paid reply

`record.json` is renamed into place last. It holds the key, the payload that the key is the hash of, the digests of the
files and the deterministic metrics: two equal runs write the same bytes. What may differ between them (commit, times,
hardware, cost) stands in `provenance.json` beside it. An artifact is found only while every file is what its record
says, and the record what its own digest says: whatever was cut, lost or edited is named, and that stage made again.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.config import Canonical, canonical, fingerprint
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.store.files import write_json

FORMAT = 1
RECORD, PROVENANCE, WORK = "record.json", "provenance.json", ".work"
RUN = "run.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A finished stage's directory and its record."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The stage's key."""
        return str(self.record["key"])

    @property
    def metrics(self) -> dict[str, Any]:
        """The deterministic metrics that the stage recorded."""
        return dict(self.record["metrics"])

    @property
    def provenance(self) -> dict[str, Any]:
        """What may differ between equal runs; empty where it was lost."""
        try:
            return dict(json.loads((self.folder / PROVENANCE).read_text()))
        except (OSError, ValueError):
            return {}

    def file(self, name: str) -> Path:
        """Return where one of the artifact's tables stands (`NAME.parquet`)."""
        return self.folder / f"{name}.parquet"

    def table(self, name: str, columns: Iterable[str] | None = None) -> pa.Table:
        """Read one of the artifact's tables, or these columns of it: texts are most of a table's size."""
        return pq.read_table(self.file(name), columns=None if columns is None else list(columns))


class Store:
    """A directory of artifacts. Safe for several processes at once."""

    def __init__(self, root: Path, *, create: bool = True) -> None:
        """Open the store at `root`, creating it (readable by its owner only) where it doesn't exist.

        With `create` off nothing is written, and a store that isn't there is empty. Raises UserError where the
        directory can't be made.
        """
        self.root = root.expanduser().absolute()
        self._told = set[str]()
        if not create:
            return
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("artifacts", "runs", "locks"):
                (self.root / name).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"the store {self.root} can't be created ({error.strerror}): set SRECYCLE_STORE or store=PATH"
            ) from error

    def folder(self, stage: str, key: str) -> Path:
        """Return the directory of a stage's artifact, whether it exists or not."""
        return self.root / "artifacts" / stage / key

    def scratch(self, stage: str, key: str) -> Path:
        """Return where an artifact's unfinished work stands, while there is any."""
        return self.folder(stage, key) / WORK

    def find(self, stage: str, key: str) -> Artifact | None:
        """Return the finished artifact of this key, or None. One that is not as it was recorded is not finished.

        Raises UserError where a newer srecycle wrote it.
        """
        folder = self.folder(stage, key)
        if not (folder / RECORD).is_file():
            return None
        record, wrong = inspected(folder)
        if wrong:
            if wrong not in self._told:
                say(f"  {wrong}: {stage} is made again")
            self._told.add(wrong)
            return None
        return Artifact(folder=folder, record=record)

    def records(self, stage: str) -> Iterator[Mapping[str, Any]]:
        """Yield the records of every finished artifact of a stage, newest first."""
        found = sorted(
            (self.root / "artifacts" / stage).glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime, reverse=True
        )
        for path in found:
            try:
                yield json.loads(path.read_text())
            except ValueError:
                continue

    def lock_file(self, key: str) -> Path:
        """Return the file whose lock the maker of this key holds."""
        return self.root / "locks" / f"{key}.lock"

    @contextmanager
    def lock(self, stage: str, key: str) -> Iterator[None]:
        """Hold the key's lock. It is the operating system's: a dead owner never blocks anybody."""
        lock = filelock.FileLock(self.lock_file(key))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            say(f"  {stage} {key[:8]} is being made by another process: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self, stage: str, key: str) -> tuple[Path, Path, bool]:
        """Prepare the directory of an artifact to be made: its folder, its scratch folder, and whether work was left.

        Whatever a killed process left outside the scratch folder is half-written, and removed.
        """
        folder = self.folder(stage, key)
        scratch = self.scratch(stage, key)
        scratch.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if path != scratch:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return folder, scratch, any(scratch.iterdir())

    def clear(self, stage: str, key: str) -> None:
        """Remove a finished artifact's scratch folder, which one that was killed just then has left."""
        shutil.rmtree(self.scratch(stage, key), ignore_errors=True)

    def commit(
        self,
        stage: str,
        key: str,
        payload: Canonical,
        metrics: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> Artifact:
        """Declare the directory complete: digests, provenance, and the record last."""
        folder = self.folder(stage, key)
        files = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for path in sorted(folder.rglob("*"))
            if path.is_file() and WORK not in path.relative_to(folder).parts
        }
        record = {
            "format": FORMAT,
            "stage": stage,
            "key": key,
            "payload": payload,
            "files": files,
            "metrics": dict(metrics),
        }
        record["digest"] = _own_digest(record)
        write_json(folder / PROVENANCE, provenance)
        write_json(folder / RECORD, record)
        self.clear(stage, key)
        return Artifact(folder=folder, record=record)


def inspected(folder: Path, digest: Callable[[Path], str] = file_digest) -> tuple[Mapping[str, Any], str]:
    """Return an artifact's record, and what is wrong with the artifact: "" where all is as it was recorded.

    `digest` computes a file's. Raises UserError where a newer srecycle wrote it.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        form, key, files, own = (record[name] for name in ("format", "key", "files", "digest"))
    except OSError as error:
        return {}, f"{folder / RECORD} can't be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return {}, f"{folder / RECORD} is cut, or no record"
    if isinstance(form, int) and form > FORMAT:
        raise UserError(f"{folder} was written by a newer srecycle (format {form}): update srecycle")
    if key != folder.name or own != _own_digest(record):
        return {}, f"{folder / RECORD} is not what was recorded"
    wrong = next(filter(None, (_changed(folder / name, entry, digest) for name, entry in files.items())), "")
    return record, wrong


def _changed(file: Path, entry: Mapping[str, Any], digest: Callable[[Path], str]) -> str:
    """Return in what a file differs from its entry in the record; "" where in nothing."""
    if not file.is_file():
        return f"{file} is missing"
    if (size := file.stat().st_size) != entry["bytes"]:
        return f"{file} has {size:,} bytes where {entry['bytes']:,} were recorded"
    return "" if digest(file) == entry["sha256"] else f"{file} is not what was recorded (its content has changed)"


def _own_digest(record: Mapping[str, Any]) -> str:
    return fingerprint(canonical({name: value for name, value in record.items() if name != "digest"}))
