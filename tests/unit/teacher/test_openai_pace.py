"""How fast a server may be asked: with a clock of the test's own."""

from dataclasses import dataclass

import pytest

from srecycle.teacher.pace import Pace, Ticket, asked_pause, backoff, seconds_of


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _sent(pace: Pace, clock: Clock, seconds: float, tokens: float = 100.0) -> list[float]:
    """Send as fast as the pace lets for so many seconds; return when."""
    moments, end = [], clock.now + seconds
    while True:
        clock.now += pace.delay(tokens)
        if clock.now >= end:
            clock.now = end
            return moments
        pace.leave(tokens)
        moments.append(clock.now)
        if not pace.delay(tokens):
            clock.now += 1e-6


def _told(pace: Pace, ticket: Ticket, name: str, limit: float, left: float, reset: str) -> None:
    prefix = "x-ratelimit"
    values = {f"{prefix}-limit-{name}": limit, f"{prefix}-remaining-{name}": left, f"{prefix}-reset-{name}": reset}
    pace.told(ticket, {key: str(value) for key, value in values.items()})


def test_delay_without_limits_is_none(clock: Clock) -> None:
    pace = Pace(concurrency=4, clock=clock)
    assert pace.slots == 4 and pace.delay(1e9) == 0


@pytest.mark.parametrize(("name", "limit", "expected"), [("requests", 120, 120), ("tokens", 12000, 120)])
def test_delay_configured_limit_is_kept_in_every_minute(clock: Clock, name: str, limit: float, expected: int) -> None:
    pace = Pace(concurrency=64, limits={name: limit}, clock=clock)
    for _ in range(3):
        assert expected - 2 <= len(_sent(pace, clock, 60)) <= expected + 2


def test_delay_request_larger_than_the_limit_is_sent_and_paid_off(clock: Clock) -> None:
    pace = Pace(concurrency=1, limits={"tokens": 600}, clock=clock)
    assert pace.delay(1200) == 0
    pace.leave(1200)
    assert pace.delay(1200) == pytest.approx(120, rel=0.01)


def test_answered_gives_back_tokens_that_were_not_used(clock: Clock) -> None:
    pace = Pace(concurrency=1, limits={"tokens": 6000}, clock=clock)
    ticket = pace.leave(1100)
    before = pace.delay(100)
    pace.answered(ticket, 100)
    assert before == pytest.approx(11, rel=0.01) and pace.delay(100) == pytest.approx(1, rel=0.1)


def test_told_nothing_left_waits_for_the_rate_that_the_headers_tell(clock: Clock) -> None:
    pace = Pace(concurrency=64, clock=clock)
    _told(pace, pace.leave(100), "requests", 600, 0, "60s")
    assert pace.delay(100) == pytest.approx(0.1)
    # A limit of a day: 30 of 14,400 are back in three minutes, which is one every six seconds.
    _told(pace, pace.leave(100), "requests", 14400, 14370, "3m0s")
    for _ in range(14370):
        pace.leave(100)
    assert pace.delay(100) == pytest.approx(6.0)


def test_told_what_was_sent_since_is_taken_off(clock: Clock) -> None:
    pace = Pace(concurrency=64, clock=clock)
    first = pace.leave(100)
    for _ in range(5):
        pace.leave(100)
    _told(pace, first, "requests", 60, 5, "55s")
    assert pace.delay(100) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("headers", [{}, {"x-ratelimit-limit-requests": "x", "x-ratelimit-remaining-requests": "-1"}])
def test_told_headers_that_say_nothing_change_nothing(clock: Clock, headers: dict[str, str]) -> None:
    pace = Pace(concurrency=2, clock=clock)
    pace.told(pace.leave(1), headers)
    assert pace.delay(1) == 0


def test_refused_pauses_everybody_and_lets_them_go_one_by_one(clock: Clock) -> None:
    pace = Pace(concurrency=16, clock=clock)
    tickets = [pace.leave(1) for _ in range(16)]
    clock.now += 0.1
    for ticket in tickets:
        pace.refused(ticket, 4.0)
    assert pace.slots == 8, "a burst of refusals is one"
    assert pace.delay(1) == pytest.approx(4.0)
    begun = clock.now
    leaving = _sent(pace, clock, 4.5)
    assert leaving[0] == pytest.approx(begun + 4.0)
    assert len(leaving) <= 3, "after the pause they all left at once"


def test_refused_again_and_again_halves_to_one_and_replies_give_back(clock: Clock) -> None:
    pace = Pace(concurrency=16, clock=clock)
    for _ in range(8):
        clock.now += 100
        pace.refused(pace.leave(1), 1.0)
    assert pace.slots == 1
    clock.now += 100
    for _ in range(30):
        pace.answered(pace.leave(1), 10)
    assert pace.slots == 16


def test_refused_without_a_time_pauses_longer_each_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    pace = Pace(concurrency=16, clock=clock)
    pauses = []
    for _ in range(9):
        pauses.append(pace.refused(pace.leave(1), None))
        clock.now += pauses[-1] + 10
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    pace.answered(pace.leave(1), 10)
    assert pace.refused(pace.leave(1), None) == 1


def test_backoff_has_full_jitter() -> None:
    waits = [backoff(4) for _ in range(2000)]
    assert min(waits) < 0.5 and 7.5 < max(waits) <= 8 and 3.5 < sum(waits) / len(waits) < 4.5
    assert backoff(10_000) <= 60


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "20", "retry-after": "7"}, 0.02),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_asked_pause_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_pause(headers, now=100.0) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1.0), ("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("2", 2.0), ("x", None), ("1s!", None)],
)
def test_seconds_of_reads_durations(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == (None if seconds is None else pytest.approx(seconds))
