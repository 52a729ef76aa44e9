"""Digests of files and folders: how data sets and models enter an identity by content.

Hashing a 15 GB model for every `mode=plan` would make planning slow, so digests of large files are remembered by
(path, inode, size, modification time in ns) in the user's cache folder. Losing that memo costs time and nothing else.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from srecycle.errors import UserError

_REMEMBER_FROM_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes (hex). Raises UserError where the file can't be read."""
    try:
        status = path.stat()
        remembered = status.st_size >= _REMEMBER_FROM_BYTES
        name = f"{path.resolve()}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}"
        if remembered and (known := _memo().get(name)):
            return known
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    if remembered:
        _remember(name, digest)
    return digest


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
        memo = json.loads(_memo_file().read_text())
    except (OSError, ValueError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _remember(name: str, digest: str) -> None:
    file = _memo_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as stream:
            json.dump(_memo() | {name: digest}, stream)
        Path(stream.name).replace(file)
    except OSError:
        return  # a read-only home only means that the next plan hashes again
