"""Digests of files and folders: how data sets and models enter an identity by content.

Hashing a 15 GB model for every `mode=plan` would make planning slow, so digests of large files are remembered by
(path, inode, size, modification time in ns) in the user's cache folder. Losing that memo costs time and nothing else.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from srecycle.errors import UserError

_REMEMBER_FROM_BYTES = 1 << 20
_REMEMBERED = 10_000


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes (hex), from the memo where it is there.

    Raises UserError where the file can't be read.
    """
    try:
        status = path.stat()
        name = f"{path.resolve()}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}"
    except OSError as error:
        raise _unreadable(path, error) from error
    if status.st_size < _REMEMBER_FROM_BYTES:
        return fresh_digest(path)
    if known := _memo().get(name):
        return known
    digest = fresh_digest(path)
    _remember(name, digest)
    return digest


def fresh_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes (hex), read now. Raises UserError where the file can't be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} can't be read: {error.strerror or error}")


def folder_digest(folder: Path, names: Iterable[str] | None = None) -> str:
    """Return one sha256 over a folder's files, by relative name and content.

    `names` restricts it to these files; hidden files and folders are left out.
    """
    chosen = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    wanted = set(names) if names is not None else None
    lines = [f"{name} {file_digest(folder / name)}" for name in chosen if wanted is None or name in wanted]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _memo_file() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "srecycle" / "digests.json"


def _memo() -> dict[str, str]:
    try:
        return _parsed(_memo_file(), _memo_file().stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=1)
def _parsed(file: Path, changed: int) -> dict[str, str]:
    try:
        memo = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _remember(name: str, digest: str) -> None:
    file = _memo_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as stream:
            newest = [*_memo().items(), (name, digest)][-_REMEMBERED:]
            json.dump(dict(newest), stream)
        Path(stream.name).replace(file)
    except OSError:
        return  # a read-only home only means that the next plan hashes again
