"""What progress says where there is no terminal."""

import pytest

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
