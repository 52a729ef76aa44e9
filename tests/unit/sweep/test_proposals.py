"""Which settings a sweep tries."""

import math
import sys

import pytest

from srecycle.errors import UserError
from srecycle.sweep.file import Parameter, SweepFile
from srecycle.sweep.propose import Tried, drawn, grid, promising

A = Parameter(name="a", distribution="categorical", values=(1, 2))
B = Parameter(name="b", distribution="categorical", values=("x", "y", "z"))
LINE = Parameter(name="line", distribution="uniform", low=-1.0, high=1.0)


def _file(*parameters: Parameter, maximize: bool = True) -> SweepFile:
    return SweepFile(
        name="s", method="grid", parameters=parameters, fixed=(), metric="m", maximize=maximize, run_cap=None
    )


def test_grid_is_every_combination_the_last_varying_fastest() -> None:
    assert [tuple(one.values()) for one in grid(_file(A, B))] == [
        *[(1, "x"), (1, "y"), (1, "z")],
        *[(2, "x"), (2, "y"), (2, "z")],
    ]


def test_draws_are_a_sequence_of_the_seed_of_which_more_runs_see_more() -> None:
    file = _file(A, LINE)
    assert drawn(file, 3, 7) == drawn(file, 9, 7)[:3]
    assert drawn(file, 3, 7) != drawn(file, 3, 8)


def test_draws_never_repeat_a_setting() -> None:
    found = drawn(_file(A, B), 200, 0)
    assert len(found) == 6 and len({tuple(one.values()) for one in found}) == 6


@pytest.mark.parametrize(
    ("distribution", "low", "high", "step"),
    [
        ("uniform", -0.5, 0.5, None),
        ("int_uniform", 2, 5, 1),
        ("q_uniform", 0.0, 1.0, 0.1),
        ("log_uniform_values", 1e-5, 1e-2, None),
    ],
)
def test_draws_fill_their_interval_and_keep_to_it(
    distribution: str, low: float, high: float, step: float | None
) -> None:
    one = Parameter(name="a", distribution=distribution, low=low, high=high, step=step)
    values = [setting["a"] for setting in drawn(_file(one), 400, 0)]
    assert all(isinstance(value, int | float) and low <= value <= high for value in values)
    if step:
        steps = round((high - low) / step)
        assert sorted(values) == [round(low + step * number, 12) for number in range(steps + 1)]  # type: ignore[type-var]
    else:
        middle = math.sqrt(low * high) if distribution.startswith("log") else (low + high) / 2
        assert 140 < sum(value < middle for value in values) < 260  # type: ignore[operator]


@pytest.mark.parametrize("maximize", [True, False])
def test_promising_settings_gather_where_the_metric_is_best(maximize: bool) -> None:
    pytest.importorskip("optuna")
    tried: list[Tried] = []
    for _ in range(40):
        values = promising(_file(LINE, maximize=maximize), tried, 0)
        distance = abs(float(values["line"]) - 0.6)  # type: ignore[arg-type]
        tried.append(Tried(values=values, metric=-distance if maximize else distance))
    late = [abs(float(one.values["line"]) - 0.6) for one in tried[20:]]  # type: ignore[arg-type]
    assert sorted(late)[len(late) // 2] < 0.35, "by chance it would be 0.6"


def test_promising_settings_are_the_same_for_the_same_past() -> None:
    pytest.importorskip("optuna")
    past = [
        Tried(values={"a": 1, "line": 0.5}, metric=1.0),
        Tried(values={"a": 2, "line": -0.5}, metric=None),
        Tried(values={"a": 2, "line": 0.1}, metric=None, running=True),
    ]
    file = _file(A, LINE)
    assert promising(file, past, 3) == promising(file, past, 3)
    assert set(promising(file, past, 3)) == {"a", "line"}


def test_setting_that_the_file_does_not_allow_any_more_says_nothing() -> None:
    pytest.importorskip("optuna")
    known = [Tried(values={"a": 1, "line": 0.5}, metric=1.0)]
    gone = [Tried(values={"a": 3, "line": 0.5}, metric=9.0), Tried(values={"a": 1, "line": 7.0}, metric=None)]
    file = _file(A, LINE)
    setting = promising(file, [*known, *gone], 3)
    assert setting["a"] in (1, 2) and -1 <= float(setting["line"]) <= 1  # type: ignore[arg-type]


def test_bayes_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'srecycle\[bayes\]'"):
        promising(_file(LINE), [], 0)
