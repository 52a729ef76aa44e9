"""What progress says where there is no terminal."""

import io

import pytest
from rich.console import Console

from srecycle import progress


def test_meter_after_a_resume_tells_the_rate_of_this_run_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 0.0, 10.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    meter = progress.Meter("train", 200, "steps", None)
    meter.resume_at(100)
    meter.advance(20)
    assert said == ["  train: 120/200 steps, 2.0/s, about 40 s left"]


def test_meter_tells_what_its_detail_says_at_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    details = iter(["1,234 tokens/s", ""])
    meter = progress.Meter("likelihoods", 200, "rows", None, lambda: next(details))
    meter.advance(20)
    meter.advance(20)
    assert said == [
        "  likelihoods: 20/200 rows, 2.0/s, 1,234 tokens/s, about 90 s left",
        "  likelihoods: 40/200 rows, 2.0/s, about 80 s left",
    ]


def test_metered_hands_its_detail_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    with progress.metered("work", 2, detail=lambda: "all is well") as meter:
        meter.advance()
    assert len(said) == 1 and ", all is well, about" in said[0]


def test_metered_on_a_terminal_shows_the_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(progress, "console", screen)
    with progress.metered("work", 2, detail=lambda: "77 tokens/s") as meter:
        meter.advance(2)
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "work" in shown and "77 tokens/s" in shown
