"""Which batches were handed to a server: one SQLite file beside the ledger, readable by its owner only.

A batch is written down with all its requests before it is sent ("sending"), and with the server's id after that
("sent"). So a killed process's successor knows what to look for, and can keep replies that it has no use for itself.
Requests are forgotten once their batch is "done" (its replies are in the ledger) or "void" (it never came to be).
"""

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from srecycle.errors import UserError

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS batches (
    token TEXT PRIMARY KEY, provider TEXT NOT NULL, id TEXT, state TEXT NOT NULL, requests INTEGER NOT NULL,
    time REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (
    token TEXT NOT NULL, key TEXT NOT NULL, sample INTEGER NOT NULL, request TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_key ON requests (key);
"""
_IN_ONE_QUERY: Final = 500


@dataclass(frozen=True, kw_only=True)
class Line:
    """A request of a batch: its ledger key, its fields, and its sample's number."""

    key: str
    request: Mapping[str, Any]
    sample: int


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A batch that was handed over at `time` (seconds since 1970). `id` is the server's; None where it is in doubt."""

    token: str
    id: str | None
    time: float
    lines: Mapping[str, Line]


class Journal:
    """The open journal, for one thread. Several processes may have it open at once."""

    def __init__(self, path: Path) -> None:
        """Open the journal, creating it where there is none. Raises UserError where it is none, or can't be opened."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            self._connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._connection.executescript(_TABLES)
        except (sqlite3.DatabaseError, OSError) as error:
            raise UserError(
                f"{path} can't be opened as a journal of batches ({error}): set teacher.journal to another file"
            ) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def begin(self, provider: str, lines: Sequence[Line]) -> Sent:
        """Write down a batch that is about to be sent."""
        token, moment = secrets.token_hex(16), time.time()
        texts = [(token, line.key, line.sample, json.dumps(line.request, sort_keys=True)) for line in lines]
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "INSERT INTO batches VALUES (?, ?, NULL, 'sending', ?, ?)", (token, provider, len(lines), moment)
            )
            self._connection.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", texts)
        return Sent(token=token, id=None, time=moment, lines={line.key: line for line in lines})

    def sent(self, token: str, identifier: str) -> None:
        """Write down the id that the server gave a batch."""
        self._connection.execute("UPDATE batches SET id = ?, state = 'sent' WHERE token = ?", (identifier, token))

    def close(self, token: str, state: Literal["done", "void"]) -> None:
        """Say that a batch needs no more care, and forget its requests."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE batches SET state = ? WHERE token = ?", (state, token))
            self._connection.execute("DELETE FROM requests WHERE token = ?", (token,))

    def open(self, provider: str, keys: Iterable[str]) -> list[Sent]:
        """Return the batches at a provider that hold some of these keys and still need care, oldest first."""
        wanted, tokens = list(keys), set[str]()
        for start in range(0, len(wanted), _IN_ONE_QUERY):
            some = wanted[start : start + _IN_ONE_QUERY]
            query = f"SELECT DISTINCT token FROM requests WHERE key IN ({','.join('?' * len(some))})"
            tokens |= {token for (token,) in self._connection.execute(query, some)}
        query = "SELECT token, id, time FROM batches WHERE provider = ? AND state IN ('sending', 'sent') ORDER BY time"
        found = self._connection.execute(query, (provider,)).fetchall()
        return [
            Sent(token=token, id=identifier, time=moment, lines=self._lines(token))
            for token, identifier, moment in found
            if token in tokens
        ]

    def _lines(self, token: str) -> dict[str, Line]:
        found = self._connection.execute("SELECT key, sample, request FROM requests WHERE token = ?", (token,))
        return {key: Line(key=key, sample=sample, request=json.loads(text)) for key, sample, text in found}
