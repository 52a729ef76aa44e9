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
        connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=NORMAL")
        _update(connection, path)
    except (sqlite3.DatabaseError, OSError) as error:
        raise UserError(
            f"{path} can't be opened as a ledger ({error}): mend its permissions or move it away"
        ) from error
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite doesn't wait for another process that is just doing the same, as it does elsewhere."""
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > patience:
                raise
            time.sleep(0.02)


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
