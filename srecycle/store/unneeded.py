"""What a store holds, and what of it no run needs.

A run needs the artifacts of its stages, those that its stages were to make (a killed run goes on from them), and the
artifacts that these were made from. What is younger than `days` is left alone too: it may belong to a run that has not
told of itself yet. Where a file that names keys can't be read, nothing counts as unneeded: it may name any of them.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from srecycle.errors import UserError
from srecycle.store.artifacts import RECORD, RUN, Store

SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Held:
    """One artifact's directory: its size (bytes), when it was last written to (seconds since 1970), and whether it is
    finished."""

    folder: Path
    finished: bool
    size: int
    changed: float

    @property
    def stage(self) -> str:
        """The stage that it is of."""
        return self.folder.parent.name

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.folder.name


def held(store: Store) -> list[Held]:
    """Return every artifact of the store, finished or not, by stage and age."""
    found = [_held(folder) for folder in (store.root / "artifacts").glob("*/*") if folder.is_dir()]
    return sorted(found, key=lambda one: (one.stage, one.changed, one.key))


def _held(folder: Path) -> Held:
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    changed = max((one.st_mtime for one in stats), default=folder.stat().st_mtime)
    size = sum(one.st_size for one in stats)
    return Held(folder=folder, finished=(folder / RECORD).is_file(), size=size, changed=changed)


def unneeded(store: Store, days: float) -> list[Held]:
    """Return the artifacts that no run needs, and that nobody has written to for so many days.

    Raises UserError where a run's or an artifact's file doesn't tell what it needs.
    """
    needed = _needed(store)
    youngest = time.time() - days * SECONDS_A_DAY
    return [one for one in held(store) if one.key not in needed and one.changed < youngest]


def delete(store: Store, one: Held) -> bool:
    """Delete an artifact; return False, and leave it, where a process is making it just now."""
    lock = filelock.FileLock(store.lock_file(one.key))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return False
    try:
        (one.folder / RECORD).unlink(missing_ok=True)  # first, so that half of it is never taken for the whole
        shutil.rmtree(one.folder)
    finally:
        lock.release()
    return True


def _needed(store: Store) -> set[str]:
    """Return the keys that runs name, and those of everything that these were made from."""
    left = [key for folder in (store.root / "runs").glob("*") for key in _named(folder)]
    inputs = {path.parent.name: path for path in (store.root / "artifacts").glob(f"*/*/{RECORD}")}
    needed = set[str]()
    while left:
        key = left.pop()
        if key in needed:
            continue
        needed.add(key)
        if key in inputs:
            with _legible(inputs[key]):
                left += _keys(json.loads(inputs[key].read_text(encoding="utf-8"))["payload"])
    return needed


def _named(run: Path) -> Iterator[str]:
    """Yield the keys that a run's files name: of what it made, and of what it was to make."""
    with _legible(file := run / RUN):
        if file.is_file():
            yield from [str(stage["key"]) for stage in json.loads(file.read_text(encoding="utf-8"))["stages"]]
    with _legible(file := run / "metrics.jsonl"):
        if file.is_file() and (line := _first_line(file)):
            yield from [str(key) for key in json.loads(line)["keys"].values()]


def _first_line(file: Path) -> str:
    with file.open(encoding="utf-8") as stream:
        return stream.readline()


@contextmanager
def _legible(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is cut or no record of srecycle: what it needs can't be told, so nothing counts as unneeded; "
            "mend that file, or delete its folder"
        ) from error


def _keys(payload: Any) -> Iterator[str]:
    """Yield the keys of the stages that a payload reads."""
    if isinstance(payload, dict):
        if payload.keys() == {"stage", "key"}:
            yield str(payload["key"])
        for value in payload.values():
            yield from _keys(value)
    if isinstance(payload, list):
        for value in payload:
            yield from _keys(value)
