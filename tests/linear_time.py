"""Whether something takes time in line with the length of what it is given."""

from collections.abc import Callable


def assert_linear(seconds: Callable[[int], float], length: int) -> None:
    """Compare a length with eight times that: eight times as long, 64 times where something is quadratic."""
    short, long = seconds(length), seconds(8 * length)
    if long > 0.1 and long > 24 * max(short, 1e-3):  # perhaps the machine was busy
        short, long = (min(seconds(one) for _ in range(3)) for one in (length, 8 * length))
        assert long < 24 * max(short, 1e-3), f"{short:.3f} s, then {long:.3f} s"
