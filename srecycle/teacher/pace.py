"""How fast a server may be asked: what the user allows, what its headers tell, and what its refusals teach.

Three things hold a request back. A pause: a refusal for going too fast (429) stops everybody until the server said, or
for a random time that doubles with every refusal in a row; afterwards requests leave one by one. Buckets: requests and
tokens a minute, as configured and as `x-ratelimit-*` tells, and what is left in them. Slots: how many requests may be
under way; a refusal halves them, every answer gives one back. Pure: the clock is an argument, nothing sleeps here.
"""

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
LONGEST_SPREAD: Final = 2.0
"""Seconds: of the first pause or backoff that nobody asked for (a random part of it), of the longest such one, and of
the time over which requests leave after a pause."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|d|h|m|s)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


@dataclass(kw_only=True)
class Bucket:
    """An allowance that refills at `rate` a second up to `capacity`; a request takes its cost out of it."""

    rate: float
    capacity: float
    level: float
    moment: float

    def delay(self, cost: float, now: float) -> float:
        """Return the seconds until a request of this cost may leave: one above the capacity waits for a full bucket."""
        missing = min(cost, self.capacity) - self._level(now)
        return max(0.0, missing / self.rate)

    def take(self, cost: float, now: float) -> None:
        """Take a cost out (a negative one gives back); the level may fall below zero."""
        self.level, self.moment = self._level(now) - cost, now

    def _level(self, now: float) -> float:
        return min(self.capacity, self.level + self.rate * (now - self.moment))


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A request on its way: when it left, what it was thought to cost, and what had left before it."""

    moment: float
    cost: Mapping[str, float]
    before: Mapping[str, float]


@dataclass(kw_only=True)
class Pace:
    """The pace of all requests to one server. `limits` are the user's, a minute, by "requests" and "tokens"."""

    concurrency: int
    limits: Mapping[str, float | None] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        """Begin with all slots, and know of no limits but the user's."""
        self._slots = float(self.concurrency)
        self._until = self._spread = 0.0
        self._last_left = float("-inf")
        self._refusals = 0
        self._left = {"requests": 0.0, "tokens": 0.0}
        self._told: dict[str, Bucket] = {}
        # A second's worth of burst: a minute's would let twice the limit through in the first minute.
        self._allowed = {
            name: Bucket(rate=limit / 60, capacity=limit / 60, level=limit / 60, moment=self.clock())
            for name, limit in self.limits.items()
            if limit
        }

    @property
    def slots(self) -> int:
        """How many requests may be under way."""
        return max(1, int(self._slots))

    def delay(self, tokens: float) -> float:
        """Return the seconds until a request of so many tokens may leave; 0 is now."""
        now = self.clock()
        cost = {"requests": 1.0, "tokens": tokens}
        waits = [bucket.delay(cost[name], now) for held in (self._allowed, self._told) for name, bucket in held.items()]
        waits.append(self._until - now)
        if now < self._until + self._spread:
            waits.append(self._last_left + self._spread / self.slots - now)
        return max(0.0, *waits)

    def leave(self, tokens: float) -> Ticket:
        """Count a request as sent."""
        now = self.clock()
        cost = {"requests": 1.0, "tokens": tokens}
        ticket = Ticket(moment=now, cost=cost, before=dict(self._left))
        for name, amount in cost.items():
            self._left[name] += amount
            for held in (self._allowed, self._told):
                if name in held:
                    held[name].take(amount, now)
        self._last_left = now
        return ticket

    def answered(self, ticket: Ticket, tokens: float) -> None:
        """Learn from a reply: there is room for one more, and what the request cost in truth."""
        self._refusals = 0
        self._slots = min(self.concurrency, self._slots + 1)
        if tokens and (bucket := self._allowed.get("tokens")):
            bucket.take(tokens - ticket.cost["tokens"], self.clock())

    def told(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Learn from a response's `x-ratelimit-*` headers.

        What the server calls left is less what has been sent since that request. The rate is a minute's share of the
        limit, or the slower one at which the bucket refills: some servers' limits are a day's.
        """
        now = self.clock()
        for name in self._left:
            limit = _number(headers.get(f"x-ratelimit-limit-{name}"))
            left = _number(headers.get(f"x-ratelimit-remaining-{name}"))
            if limit is None or left is None or limit <= 0:
                continue
            rate, reset = limit / 60, seconds_of(headers.get(f"x-ratelimit-reset-{name}"))
            if reset and left < limit:
                rate = min(rate, (limit - left) / reset)
            since = self._left[name] - ticket.before[name] - ticket.cost[name]
            self._told[name] = Bucket(rate=rate, capacity=limit, level=min(left, limit) - since, moment=now)

    def refused(self, ticket: Ticket, asked: float | None) -> float:
        """Pause everybody after a 429: for the seconds that the server asked for, else for a random time.

        Returns the seconds. Refusals of requests that left before the pause began are part of it.
        """
        now = self.clock()
        fresh = ticket.moment >= self._until
        if fresh:
            self._refusals += 1
            self._slots = max(1.0, self._slots / 2)
        if asked is None:
            asked = backoff(self._refusals) if fresh else 0.0
        if now + asked > self._until:
            self._until = now + asked
            self._spread = min(asked, LONGEST_SPREAD)
        return max(0.0, self._until - now)


def backoff(attempt: int) -> float:
    """Return the seconds to wait after the nth failure in a row: exponential, with full jitter."""
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt - 1, 30)))


def asked_pause(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a server asks to wait (`retry-after-ms`; `retry-after` in seconds or as a date)."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return max(0.0, milliseconds / 1000)
    told = headers.get("retry-after")
    if told is None or (seconds := _number(told)) is not None:
        return None if told is None else max(0.0, seconds or 0.0)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - (time.time() if now is None else now))
    except (ValueError, OverflowError):
        return None


def seconds_of(duration: str | None) -> float | None:
    """Read a duration as rate-limit headers write it ("6m0s", "120ms", "1.5"), in seconds; None where it is none."""
    if duration is None or (plain := _number(duration)) is not None:
        return None if duration is None else plain
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(text: str | None) -> float | None:
    """Read a finite number that isn't negative."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
