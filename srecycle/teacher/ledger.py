"""Every paid reply, kept: one SQLite file a store, one commit a reply, shared by all runs, processes and machines.

A reply's key is a hash over the provider, every field of the request and, from the second on, the sample's number.
Attempts that gave no reply are journalled beside the replies and never served as one. Before a request is sent its key
is claimed: a claim says who asks (so that two processes don't pay for the same reply) and what that may cost at most
(so that they see each other's reserves). Claims expire, and die with their process. What is committed survives a killed
process; the last commits before a power cut may not.
"""

import hashlib
import json
import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from srecycle.errors import UserError
from srecycle.teacher.base import Rates, Reply
from srecycle.teacher.schema import open_ledger

LEASE: Final = 60.0
"""Seconds after which a claim that nobody renews is void."""

_TOKEN = secrets.token_hex(4)
_IN_ONE_QUERY = 500
_NEWEST = 1000
_LONGEST_GAP = 60.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What became of the keys that were to be claimed: their replies are there, they are ours, or others ask already.

    Keys that are in none of the three were not affordable. `spent` and `reserved` (dollars) are the provider's, by all
    processes, after the claim.
    """

    found: dict[str, Reply] = field(default_factory=dict)
    ours: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    spent: float = 0.0
    reserved: float = 0.0


class Ledger:
    """The open ledger. Safe for many threads of one process and for many processes."""

    def __init__(self, path: Path) -> None:
        """Open the ledger, creating it (readable by its owner only) where there is none.

        Raises UserError where the file is no ledger, or one of a newer srecycle.
        """
        self._lock = threading.Lock()
        self._connection = open_ledger(path)
        self._spent: dict[str, tuple[float, int, int]] = {}

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._connection.close()

    def find(self, key: str) -> Reply | None:
        """Return the recorded reply, or None."""
        return self.find_all([key]).get(key)

    def find_all(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Return the recorded replies of those keys that have one."""
        with self._lock:
            return self._find_all(list(keys))

    def known(self, keys: Iterable[str]) -> set[str]:
        """Return those of the keys that have a reply."""
        with self._lock:
            return {key for (key,) in self._of_keys("SELECT key FROM replies", list(keys))}

    def keep(
        self,
        key: str,
        reply: Reply,
        *,
        provider: str,
        request: Mapping[str, Any],
        seconds: float,
        attempts: int,
        sample: int = 0,
        reasoning_tokens: int = 0,
    ) -> bool:
        """Commit a reply and drop its claim. The first reply of a key stands; return whether that is this one."""
        line = {
            "key": key,
            "provider": provider,
            "model": str(request.get("model", "")),
            "sample": sample,
            "request": json.dumps(request, sort_keys=True),
            "reply": reply.text,
            "finish_reason": reply.finish_reason,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "reasoning_tokens": reasoning_tokens,
            "usd": reply.usd,
            "seconds": seconds,
            "attempts": attempts,
            "time": time.time(),
        }
        with self._commit():
            stands = self._insert("replies", line)
            self._connection.execute("DELETE FROM claims WHERE key = ?", (key,))
        return stands

    def fail(
        self,
        key: str,
        *,
        attempt: int,
        error: str,
        seconds: float,
        provider: str = "",
        model: str = "",
        status: int | None = None,
        usd: float = 0.0,
    ) -> None:
        """Journal an attempt that gave no reply. `status` is HTTP's, `usd` what it cost all the same."""
        line = {
            "key": key,
            "provider": provider,
            "model": model,
            "attempt": attempt,
            "status": status,
            "error": error,
            "usd": usd,
            "seconds": seconds,
            "time": time.time(),
        }
        with self._commit():
            self._insert("failures", line)

    def claim(self, wanted: Mapping[str, float], *, provider: str, cap: float | None = None) -> Claim:
        """Claim keys, each with the dollars that its reply may cost, as far as they are free and affordable.

        Affordable is what keeps `spent` plus `reserved` within `cap` (dollars, None: anything).
        """
        with self._commit():
            self._drop_dead_claims()
            found = self._find_all(list(wanted))
            taken = {key for (key,) in self._of_keys("SELECT key FROM claims", list(wanted))}
            (reserved,) = self._one("SELECT total(usd) FROM claims WHERE provider = ?", provider)
            spent = self._spent_with(provider) if cap is not None else 0.0
            ours: list[str] = []
            for key in wanted:
                if key in found or key in taken:
                    continue
                if cap is not None and spent + reserved + wanted[key] > cap:
                    break
                ours.append(key)
                reserved += wanted[key]
            expires = time.time() + LEASE
            self._connection.executemany(
                "INSERT INTO claims VALUES (?, ?, ?, ?, ?)",
                [(key, provider, _owner(), wanted[key], expires) for key in ours],
            )
        return Claim(found=found, ours=ours, busy=sorted(taken - found.keys()), spent=spent, reserved=reserved)

    def renew(self) -> None:
        """Put off the expiry of this process's claims."""
        with self._commit():
            self._connection.execute("UPDATE claims SET expires = ? WHERE owner = ?", (time.time() + LEASE, _owner()))

    def release(self, keys: Iterable[str]) -> None:
        """Give claims up."""
        with self._commit():
            self._connection.executemany(
                "DELETE FROM claims WHERE key = ? AND owner = ?", [(key, _owner()) for key in keys]
            )

    def spent(self, provider: str) -> float:
        """Return the dollars that all runs have paid this provider through this ledger (imported replies: none)."""
        with self._lock:
            return self._spent_with(provider)

    def rates(self, provider: str, model: str) -> Rates | None:
        """Return means over the newest replies of a model, or None where there is none that tells its tokens.

        Gaps of more than a minute between replies are pauses between runs, and no part of the speed.
        """
        query = (
            "SELECT request, input_tokens, output_tokens, time FROM replies WHERE provider = ? AND model = ?"
            " AND input_tokens > 0 ORDER BY rowid DESC LIMIT ?"
        )
        with self._lock:
            lines = self._connection.execute(query, (provider, model, _NEWEST)).fetchall()
        if not lines:
            return None
        requests, inputs, outputs, times = zip(*lines, strict=True)
        moments = sorted(times)
        gaps = [after - before for before, after in pairwise(moments)]
        at_work = [gap for gap in gaps if gap <= _LONGEST_GAP]
        return Rates(
            replies=len(lines),
            characters_per_input_token=sum(map(_characters, requests)) / sum(inputs),
            output_tokens_per_reply=sum(outputs) / len(lines),
            calls_per_second=len(at_work) / sum(at_work) if sum(at_work) else 0.0,
        )

    def rows(self, query: str, *values: Any) -> Iterator[dict[str, Any]]:
        """Yield the lines of a query by column name, reading a few hundred at a time."""
        with self._lock:
            cursor = self._connection.execute(query, values)
            names = [column[0] for column in cursor.description]
        while True:
            with self._lock:
                lines = cursor.fetchmany(_IN_ONE_QUERY)
            if not lines:
                return
            yield from (dict(zip(names, line, strict=True)) for line in lines)

    def add(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """Commit whole lines of `replies` that came from elsewhere; return how many of them were new."""
        with self._commit():
            return sum(self._insert("replies", line) for line in lines)

    @contextmanager
    def _commit(self) -> Iterator[None]:
        """Write in one transaction. Raises UserError where the file can't be written (no space, read-only)."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise UserError(f"the ledger can't be written ({error}): free the way, then run again") from error
                raise

    def _insert(self, table: str, line: Mapping[str, Any]) -> bool:
        names, places = ", ".join(line), ", ".join("?" * len(line))
        done = self._connection.execute(
            f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})", tuple(line.values())
        )
        return done.rowcount == 1

    def _one(self, query: str, *values: Any) -> tuple[Any, ...]:
        line = self._connection.execute(query, values).fetchone()
        assert line is not None
        return tuple(line)

    def _of_keys(self, query: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(keys), _IN_ONE_QUERY):
            some = keys[start : start + _IN_ONE_QUERY]
            yield from self._connection.execute(f"{query} WHERE key IN ({','.join('?' * len(some))})", some)

    def _find_all(self, keys: Sequence[str]) -> dict[str, Reply]:
        names = ("text", "finish_reason", "input_tokens", "output_tokens", "usd", "time")
        query = (
            "SELECT key, reply, finish_reason, input_tokens, output_tokens, usd, "
            "CASE imported WHEN 0 THEN time ELSE 0 END FROM replies"
        )
        lines = self._of_keys(query, keys)
        return {key: Reply(key=key, **dict(zip(names, values, strict=True))) for key, *values in lines}

    def _spent_with(self, provider: str) -> float:
        """Add what came since the last call: row numbers only grow, in the order of commits."""
        spent, *seen = self._spent.get(provider, (0.0, 0, 0))
        for place, (table, which) in enumerate((("replies", "AND imported = 0"), ("failures", ""))):
            query = f"SELECT total(usd), max(rowid) FROM {table} WHERE provider = ? AND rowid > ? {which}"
            more, last = self._one(query, provider, seen[place])
            spent += more
            seen[place] = last or seen[place]
        self._spent[provider] = (spent, seen[0], seen[1])
        return spent

    def _drop_dead_claims(self) -> None:
        owners = {owner for (owner,) in self._connection.execute("SELECT DISTINCT owner FROM claims")}
        gone = [(owner,) for owner in owners if not _is_alive(owner)]
        self._connection.executemany("DELETE FROM claims WHERE owner = ?", gone)
        self._connection.execute("DELETE FROM claims WHERE expires < ?", (time.time(),))


def ledger_key(provider: str, request: Mapping[str, Any], sample: int = 0) -> str:
    """Return the key of a request: a hash over the provider, every field, and the sample's number beyond the first."""
    named = {"provider": provider, "request": request} | ({"sample": sample} if sample else {})
    text = json.dumps(named, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _characters(request: str) -> int:
    return sum(len(str(message.get("content", ""))) for message in json.loads(request).get("messages", ()))


def _owner() -> str:
    """Name this process; the token tells it from an earlier one of the same number."""
    return f"{socket.gethostname()} {os.getpid()} {_TOKEN}"


def _is_alive(owner: str) -> bool:
    """Say whether a claim's owner may still be at work; of another machine only the expiry tells."""
    host, process, token = owner.split()
    if host != socket.gethostname():
        return True
    if int(process) == os.getpid():
        return token == _TOKEN
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
