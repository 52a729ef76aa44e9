"""The ledger's tables, and how an older ledger becomes one of today.

`user_version` is the format: 1 (or 0, as the first ledgers left it) had neither models, samples, reasoning tokens and
imports in its replies, nor provider, status and price in its failures, nor claims.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from srecycle.errors import UserError

FORMAT: Final = 2
_PATIENCE: Final = 60.0
_LOCAL: Final = {
    *("apfs", "bcachefs", "btrfs", "ecryptfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk", "hfs"),
    *("jfs", "ntfs", "overlay", "ramfs", "reiserfs", "tmpfs", "ufs", "vfat", "xfs", "zfs"),
}
"""Types of file systems that are of one machine."""

_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS replies (
        key TEXT PRIMARY KEY, provider TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
        finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd REAL NOT NULL,
        seconds REAL NOT NULL, attempts INTEGER NOT NULL, time REAL NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS failures (
        key TEXT NOT NULL, attempt INTEGER NOT NULL, error TEXT NOT NULL, seconds REAL NOT NULL, time REAL NOT NULL
    )""",
)
_TO_FORMAT_2: Final = (
    "ALTER TABLE replies ADD COLUMN model TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE replies ADD COLUMN sample INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE replies ADD COLUMN reasoning_tokens INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE replies ADD COLUMN imported INTEGER NOT NULL DEFAULT 0",
    "UPDATE replies SET model = coalesce(json_extract(request, '$.model'), '')",
    "ALTER TABLE failures ADD COLUMN provider TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE failures ADD COLUMN model TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE failures ADD COLUMN status INTEGER",
    "ALTER TABLE failures ADD COLUMN usd REAL NOT NULL DEFAULT 0",
    # Sums over money and tokens read this alone; without it they read every reply's text too.
    """CREATE INDEX replies_costs ON replies
        (provider, model, imported, usd, input_tokens, output_tokens, reasoning_tokens)""",
    "CREATE INDEX failures_costs ON failures (provider, model, usd)",
    """CREATE TABLE claims (
        key TEXT PRIMARY KEY, provider TEXT NOT NULL, owner TEXT NOT NULL, usd REAL NOT NULL, expires REAL NOT NULL
    ) WITHOUT ROWID""",
)


def open_ledger(path: Path) -> sqlite3.Connection:
    """Open the file in autocommit mode, creating or updating its tables.

    Raises UserError where the file is none of ours, or can't be opened.
    """
    try:
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        _journal(connection, path)
        _update(connection, path)
    except (sqlite3.DatabaseError, OSError) as error:
        raise UserError(
            f"{path} can't be opened as a ledger ({error}): mend its permissions or move it away"
        ) from error
    return connection


def _journal(connection: sqlite3.Connection, path: Path) -> None:
    """Choose how commits are made safe.

    A WAL is fast, and shared through memory: processes on several machines would each see their own, and break the
    file. On a file system of several machines, and wherever a ledger has been on one, commits use a rollback journal,
    for which its locks are enough.
    """
    (now,), (pages,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("journal_mode", "page_count"))
    shared = not is_local(path)
    if not shared and (now == "wal" or pages == 0):
        _change(connection, "WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return
    try:
        _change(connection, "TRUNCATE")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        raise UserError(
            f"{path} lies on a file system that machines share, and is in use as if it were of one machine: end the "
            "runs that use it, then run again"
        ) from error
    connection.execute("PRAGMA synchronous=FULL")


def _change(connection: sqlite3.Connection, mode: str) -> None:
    """Set the journal's mode. SQLite doesn't wait for another process that is just doing the same, as elsewhere."""
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode={mode}")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > patience:
                raise
            time.sleep(0.02)


def is_local(path: Path) -> bool:
    """Say whether a path lies on a file system of this machine alone. Where that isn't known, it doesn't."""
    import psutil  # whoever opens no ledger needn't wait for it

    place = path.resolve()
    mounts = [one for one in psutil.disk_partitions(all=True) if place.is_relative_to(one.mountpoint)]
    nearest = max(mounts, key=lambda one: len(Path(one.mountpoint).parts), default=None)
    return nearest is not None and nearest.fstype.lower() in _LOCAL


def _update(connection: sqlite3.Connection, path: Path) -> None:
    if _format(connection) == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    found = _format(connection)  # another process may have updated it while we waited
    if found > FORMAT:
        connection.close()
        raise UserError(f"{path} was written by a newer srecycle (ledger format {found}): update srecycle")
    if found < FORMAT:
        for statement in (*_TABLES, *_TO_FORMAT_2):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("COMMIT")


def _format(connection: sqlite3.Connection) -> int:
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)
