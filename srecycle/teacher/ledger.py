"""Every paid reply, kept: one SQLite file (WAL) a store, one commit a reply, shared by all runs.

The key is a hash over the provider and every field of the request. Failed attempts are journalled beside the replies
and never served as one.
"""

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from srecycle.teacher.base import Reply

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL,
    finish_reason TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, usd REAL NOT NULL,
    seconds REAL NOT NULL, attempts INTEGER NOT NULL, time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS failures (
    key TEXT NOT NULL, attempt INTEGER NOT NULL, error TEXT NOT NULL, seconds REAL NOT NULL, time REAL NOT NULL
);
"""


class Ledger:
    """The open ledger. Safe for many threads of one process and for many processes."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, creating it (readable by its owner only) where there is none."""
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_TABLES)

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def find(self, key: str) -> Reply | None:
        """Return the recorded reply, or None."""
        query = "SELECT reply, finish_reason, input_tokens, output_tokens, usd FROM replies WHERE key = ?"
        with self._lock:
            line = self._connection.execute(query, (key,)).fetchone()
        if line is None:
            return None
        text, finish_reason, input_tokens, output_tokens, usd = line
        return Reply(
            text=text, finish_reason=finish_reason, input_tokens=input_tokens, output_tokens=output_tokens, usd=usd
        )

    def keep(
        self, key: str, reply: Reply, *, provider: str, request: Mapping[str, Any], seconds: float, attempts: int
    ) -> None:
        """Commit a reply. The first one of a key stands."""
        line = (
            key,
            provider,
            json.dumps(request, sort_keys=True),
            reply.text,
            reply.finish_reason,
            reply.input_tokens,
            reply.output_tokens,
            reply.usd,
            seconds,
            attempts,
            time.time(),
        )
        with self._lock:
            self._connection.execute(f"INSERT OR IGNORE INTO replies VALUES ({','.join('?' * len(line))})", line)

    def fail(self, key: str, *, attempt: int, error: str, seconds: float) -> None:
        """Journal a failed attempt."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?)", (key, attempt, error, seconds, time.time())
            )


def ledger_key(provider: str, request: Mapping[str, Any]) -> str:
    """Return the key of a request: a hash over the provider and every field."""
    text = json.dumps({"provider": provider, "request": request}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
