"""The paper's rule, and what is counted."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.judge.pairs import Outcome, Pair, Tally, cases, figures, lines, outcomes, tally
from srecycle.teacher import Reply

REQUEST = "{mark}|{question}|{answer_1}|{answer_2}"
SCORE = st.integers(1, 10)


def _pair(number: int, **fields: str) -> Pair:
    texts = {"own": "own", "other": "the other"} | fields
    return Pair(id=str(number), position=number, question=f"q{number}", **texts)


def _judged(*scores: tuple[str, str], **fields: str) -> list[Outcome]:
    """Judge a pair a tuple: its replies with own, and with the other, shown first."""
    pairs = [_pair(number, **fields) for number in range(len(scores))]
    replies = [Reply(text=text) for two in scores for text in two]
    return outcomes(pairs, cases(pairs, "", REQUEST), replies)


@pytest.mark.parametrize(
    ("own_first", "other_first", "verdict"),
    [
        ("9 8", "8 9", "win"),
        ("9 8", "8 8", "win"),
        ("8 8", "7 8", "win"),
        ("9 8", "9 8", "tie"),
        ("1 10", "1 10", "tie"),
        ("8 8", "5 5", "tie"),
        ("8 9", "8 8", "lose"),
        ("8 9", "9 8", "lose"),
        ("8 8", "8.5 8", "lose"),
        ("9 8", "no idea", None),
        ("11 8", "8 9", None),
    ],
)
def test_verdict_adds_up_the_signs_of_both_orders(own_first: str, other_first: str, verdict: str | None) -> None:
    (one,) = _judged((own_first, other_first))
    assert one.verdict == verdict


@given(st.lists(st.tuples(SCORE, SCORE, SCORE, SCORE), min_size=1, max_size=30))
def test_figures_follow_the_papers_rule(scores: list[tuple[int, int, int, int]]) -> None:
    judged = _judged(*((f"{a} {b}", f"{c} {d}") for a, b, c, d in scores))
    expected = Counter[str]()
    for a, b, c, d in scores:
        total = np.sign(a - b) + np.sign(d - c)
        expected["win" if total > 0 else "lose" if total < 0 else "tie"] += 1
    found = figures(judged, 0)
    assert {name: found[name] for name in ("win", "tie", "lose")} == {n: expected[n] for n in ("win", "tie", "lose")}
    exact = Fraction(expected["win"] - expected["lose"], len(scores)) + 1
    assert found["win_rate"] == pytest.approx(float(exact))
    assert found["win_rate_low"] <= found["win_rate"] + 1e-9 and found["win_rate"] - 1e-9 <= found["win_rate_high"]
    other = tally(judged)
    assert Tally(win=other.lose, tie=other.tie, lose=other.win).win_rate == pytest.approx(2 - found["win_rate"])


def test_figures_pairs_without_a_verdict_are_counted_with_their_reason() -> None:
    pairs = [_pair(0), _pair(1, status="too_long"), _pair(2), _pair(3)]
    asked = cases(pairs, "", REQUEST)
    assert [case.id for case in asked] == ["0", "0", "2", "2", "3", "3"]
    failed = Reply(text="", finish_reason="", status="teacher_failed")
    texts = [Reply(text="9 8"), Reply(text="8 9"), Reply(text="9 8"), failed, Reply(text="well"), Reply(text="8 99")]
    found = figures(outcomes(pairs, asked, texts), 0)
    assert (found["asked"], found["judged"], found["win"]) == (4, 1, 1)
    unjudged = {name: value for name, value in found.items() if name.startswith("unjudged/")}
    assert unjudged == {"unjudged/too_long": 1, "unjudged/teacher_failed": 1, "unjudged/unparsed": 1}
    nothing = figures(outcomes(pairs[1:2], [], []), 0)
    assert nothing == {"asked": 1, "judged": 0, "win": 0, "tie": 0, "lose": 0, "unjudged/too_long": 1}


def test_figures_tell_agreement_position_and_lengths() -> None:
    judged = [
        *_judged(("9 8", "8 9"), own="w" * 10, other="l" * 4),  # both orders prefer own: agreed
        *_judged(("9 8", "9 8"), own="w" * 6, other="l" * 6),  # always the first one shown: not agreed
        *_judged(("2 8", "8 8"), own="l" * 2, other="w" * 8),  # lost, one order undecided: not agreed
    ]
    found = figures(judged, 0)
    assert found["agreement"] == pytest.approx(1 / 3)
    assert found["first_preferred"] == pytest.approx(3 / 5)  # 1 of 2, 2 of 2, 0 of 1
    lengths = [found[f"length/{name}"] for name in ("own", "other", "winners", "losers")]
    assert lengths == pytest.approx([6, 6, 9, 3])


def test_figures_interval_is_that_of_a_plain_bootstrap_and_the_same_again() -> None:
    judged = _judged(*[("9 8", "8 9")] * 44, *[("8 8", "8 8")] * 15, *[("8 9", "9 8")] * 21)
    found = figures(judged, 3)
    assert found == figures(judged, 3) != figures(judged, 4)
    signs = np.array([1] * 44 + [0] * 15 + [-1] * 21)
    drawn = np.random.default_rng(1).choice(signs, size=(20_000, 80)).mean(axis=1) + 1
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert [found["win_rate_low"], found["win_rate_high"]] == pytest.approx([low, high], abs=0.015)
    assert found["win_rate_stderr"] == pytest.approx(signs.std() / np.sqrt(80), rel=0.05)


def test_lines_hold_every_judgment_as_it_was_shown() -> None:
    pairs = [_pair(0), _pair(1, status="too_long", own="")]
    replies = [Reply(text="9 8\nfine"), Reply(text="no")]
    first, second, without = lines(outcomes(pairs, cases(pairs, "", REQUEST), replies), set="s")
    assert (first["answer_1"], first["answer_2"], first["score_1"], first["reply"]) == (
        "own",
        "the other",
        9,
        "9 8\nfine",
    )
    assert (second["answer_1"], second["answer_2"], second["status"]) == ("the other", "own", "unparsed")
    assert second["score_1"] is None and {first["reason"], second["reason"]} == {"unparsed"}
    assert (without["status"], without["reason"], without["reply"], without["set"]) == ("too_long", "too_long", "", "s")
