"""What holds of every selector of conf/selector, also of those that come later."""

import copy
import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from srecycle.compose import PACKAGE, build
from srecycle.selector import Contest, Selector
from srecycle.selector.base import TEXTS, Choice
from tests.conftest import ROOT

NAMES = sorted(file.stem for file in (ROOT / "conf/selector").glob("*.yaml"))
MORE_TAKES_FEWER: Mapping[str, bool] = {"margin": True, "quorum": True, "p": False, "below": False}
"""The thresholds that selectors have, and whether more of it takes fewer rows."""

LEAST = 1e-6
WORDS = ("4", "5", "the answer is 4", "So 5.", "#### 4", "Paris", " ", "")


@pytest.fixture(scope="module")
def selectors() -> Iterator[Mapping[str, Selector]]:
    """Build every selector as its YAML configures it."""
    OmegaConf.register_new_resolver("srecycle.package", lambda path: str(PACKAGE / path), replace=True)
    built = {}
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        for name in NAMES:
            _, experiment = build(compose("config", [f"selector@selector.response={name}"]))
            built[name] = experiment.selector["response"]
    yield built


def _thresholds(selector: Selector) -> list[str]:
    return [field.name for field in fields(selector) if field.name in MORE_TAKES_FEWER]


SCORES = st.sampled_from([0.25, 0.5, 0.999, 1.0, 1.001, 1.5, np.nan]) | st.integers(0, 2000).map(lambda one: one / 1000)


@st.composite
def contests(draw: Any, needed: tuple[str, ...], rows: int = 6) -> Contest:
    """Draw up to so many rows of two to four versions."""
    shape = (draw(st.integers(1, rows)), draw(st.integers(2, 4)))
    count = shape[0] * shape[1]

    def matrix(elements: Any, dtype: Any) -> Any:
        values = np.empty(count, dtype=dtype)
        values[:] = draw(st.lists(elements, min_size=count, max_size=count))
        return values.reshape(shape)

    usable = matrix(st.integers(0, 4).map(bool), bool)
    columns = {name: np.where(usable, matrix(SCORES, float), np.nan) for name in needed if name not in TEXTS}
    texts = {name: np.where(usable, matrix(st.sampled_from(WORDS), object), "") for name in needed if name in TEXTS}
    ids = draw(st.lists(st.integers(0, 10**6), min_size=shape[0], max_size=shape[0], unique=True))
    return Contest(
        phase=draw(st.sampled_from(["instruction", "response"])),
        ids=np.array([f"row{one}" for one in ids]),
        usable=usable,
        columns=columns,
        texts=texts,
    )


def _of(contest: Contest, places: list[int]) -> Contest:
    return replace(
        contest,
        ids=contest.ids[places],
        usable=contest.usable[places],
        columns={name: values[places] for name, values in contest.columns.items()},
        texts={name: values[places] for name, values in contest.texts.items()},
    )


def _set(selector: Selector, threshold: str, value: float) -> Selector:
    """Move a threshold, also to where none can be configured: a flip may lie at a margin below 0."""
    moved = copy.copy(selector)
    object.__setattr__(moved, threshold, value)
    return moved


def _taken(choice: Choice) -> npt.NDArray[np.bool_]:
    return choice.winner > 0


def _drawn(selectors: Mapping[str, Selector], name: str, data: Any) -> tuple[Selector, Contest]:
    """Draw a selector's thresholds, its tie and a contest of what it reads."""
    selector = selectors[name]
    selector = replace(selector, tie=data.draw(st.sampled_from(["incumbent", "challenger"])))
    drawn = {"margin": [0.0, 0.1, 0.5], "p": [0.0, 0.3, 1.0], "below": [0.5, 1.0], "quorum": [1, 2, 3]}
    for threshold in _thresholds(selector):
        selector = replace(selector, **{threshold: data.draw(st.sampled_from(drawn[threshold]))})
    return selector, data.draw(contests(selector.needed))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_selector_makes_one_sound_decision_a_row(selectors: Mapping[str, Selector], name: str, data: Any) -> None:
    selector, contest = _drawn(selectors, name, data)
    choice = selector.choose(contest)
    rows, versions = contest.usable.shape
    assert choice.winner.shape == choice.best.shape == choice.flip.shape == (rows,)
    assert choice.preference.shape == (rows, versions)
    assert ((choice.best >= 1) & (choice.best < versions)).all()
    assert ((choice.winner == 0) | (choice.winner == choice.best)).all()
    winners = np.arange(rows)[_taken(choice)]
    assert contest.usable[winners, choice.winner[winners]].all(), "an unusable challenger won"
    judged = ~np.isnan(choice.preference[:, 0])
    assert judged[winners].all() and contest.usable[judged, 0].all(), "there was nothing to compare with"
    assert not np.isinf(choice.flip).any()
    assert selector.takes_challengers or not len(winners)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_selector_order_of_rows_changes_no_decision(selectors: Mapping[str, Selector], name: str, data: Any) -> None:
    selector, contest = _drawn(selectors, name, data)
    places = list(range(len(contest.ids)))
    random.Random(data.draw(st.integers(0, 99))).shuffle(places)
    choice, shuffled = selector.choose(contest), selector.choose(_of(contest, places))
    for one in ("winner", "best", "preference", "flip"):
        np.testing.assert_array_equal(getattr(choice, one)[places], getattr(shuffled, one))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_selector_is_monotone_in_its_thresholds(selectors: Mapping[str, Selector], name: str, data: Any) -> None:
    selector, contest = _drawn(selectors, name, data)
    for threshold in _thresholds(selector):
        more = getattr(selector, threshold) + data.draw(st.integers(0, 1000)) / (1 if threshold == "quorum" else 1000)
        before, after = selector.choose(contest), _set(selector, threshold, more).choose(contest)
        few, many = (after, before) if MORE_TAKES_FEWER[threshold] else (before, after)
        assert (_taken(many) | ~_taken(few)).all(), f"more {threshold} must not take {few.winner} for {many.winner}"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_selector_flip_is_where_the_decision_turns(selectors: Mapping[str, Selector], name: str, data: Any) -> None:
    selector, contest = _drawn(selectors, name, data)
    choice, thresholds = selector.choose(contest), _thresholds(selector)
    if not thresholds:
        assert np.isnan(choice.flip).all()
        return
    taken = _taken(choice)
    for row in np.flatnonzero(~np.isnan(choice.flip)):
        flip = float(choice.flip[row])
        # Whether the row is taken, and the sign, tell which of two thresholds it is, and which way.
        (threshold,) = [one for one in thresholds if (flip < 0) ^ taken[row] == MORE_TAKES_FEWER[one] or flip == 0]
        assert flip != 0 or len(thresholds) == 1, "of two thresholds a flip of 0 tells neither"
        away = 1.0 if taken[row] == MORE_TAKES_FEWER[threshold] else -1.0
        here = getattr(selector, threshold)
        after = _taken(_set(selector, threshold, here + flip + away * LEAST).choose(contest))
        before = _taken(_set(selector, threshold, here + flip - away * LEAST).choose(contest))
        assert after[row] != taken[row], f"{threshold}: {here} + {flip} does not flip it"
        assert before[row] == taken[row] or abs(flip) <= LEAST, f"{threshold}: flipped before {here} + {flip}"
        if len(thresholds) == 1:
            on_the_way = np.abs(choice.flip) <= abs(flip) + LEAST
            same_way = taken == taken[row]
            np.testing.assert_array_equal(after != taken, on_the_way & same_way)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(data=st.data())
def test_selector_row_without_a_flip_keeps_its_decision(
    selectors: Mapping[str, Selector], name: str, data: Any
) -> None:
    selector, contest = _drawn(selectors, name, data)
    choice = selector.choose(contest)
    for threshold in _thresholds(selector):
        for value in (-100.0, -1.0, 0.0, 0.5, 1.0, 100.0):
            moved = _taken(_set(selector, threshold, value).choose(contest))
            steady = np.isnan(choice.flip)
            np.testing.assert_array_equal(moved[steady], _taken(choice)[steady])
