"""Decorations, whom they are given to, and the shares of verdicts that move."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.judge.__main__ import judged as judged_file
from srecycle.judge.decorations import DECORATIONS
from srecycle.judge.grades import Grading
from srecycle.judge.pairs import Outcome, Pair, cases, outcomes
from srecycle.judge.probes import Probed, figures, probed, stand_ins, swapped
from srecycle.teacher import Reply

REQUEST = "{mark}|{question}|{answer_1}|{answer_2}"
WIN, TIE, LOSE = ("9 8", "8 9"), ("8 8", "8 8"), ("8 9", "9 8")
NO_VERDICT = ("9 8", "well")
MARKS = re.compile(r"[#*\-\s]+")


def _judged(*scores: tuple[str, str], first: int = 0) -> list[Outcome]:
    """Judge a pair a tuple: its replies with own, and with the other, shown first."""
    pairs = [
        Pair(id=f"id{number}", position=number, question=f"q{number}", own=f"own {number}", other=f"other {number}")
        for number in range(first, first + len(scores))
    ]
    replies = [Reply(text=text) for two in scores for text in two]
    return outcomes(pairs, cases(pairs, "", REQUEST), replies)


def _again(asked: list[Probed[Outcome]], *scores: tuple[str, str]) -> list[Outcome]:
    pairs = [one.again.pair for one in asked]
    return outcomes(pairs, cases(pairs, "", REQUEST), [Reply(text=text) for two in scores for text in two])


@pytest.mark.parametrize("probe", ["references", "authority", "padding"])
@given(answer=st.text())
def test_decoration_keeps_the_answer_whole_and_adds_the_same_again(probe: str, answer: str) -> None:
    decorate = DECORATIONS[probe]
    written = decorate(answer)
    assert answer.strip() in written and written == decorate(answer) and len(written) > len(answer.strip()) + 80


@given(st.text(alphabet=st.characters(exclude_characters="#*-", exclude_categories=("Cs",))))
@example("One sentence. Another one! A third?\n\n1. first\n+ second\n```\ncode = 1. Not touched\n```")
def test_formatting_has_the_same_words_and_nothing_new_but_its_heading(answer: str) -> None:
    written = DECORATIONS["formatting"](answer)
    assert written.startswith("## Answer")
    assert MARKS.sub("", written).removeprefix("Answer") == MARKS.sub("", answer)


def test_formatting_makes_bullets_and_leaves_code_tables_and_headings() -> None:
    prose = "Water boils at 100 degrees. It then\nbecomes steam.\n\n1. Heat the water."
    answer = f"{prose}\n# Why\n| a | b |\n```\nx = 1. Y\n```"
    assert DECORATIONS["formatting"](answer).splitlines() == [
        "## Answer",
        "",
        "- **Water boils at** 100 degrees.",
        "- **It then**",
        "- **becomes steam.**",
        "",
        "1. **Heat the water.**",
        "# Why",
        "| a | b |",
        "```",
        "x = 1. Y",
        "```",
    ]


def test_padding_doubles_within_limits_and_repeats_itself() -> None:
    for length, least, most in ((0, 300, 400), (1000, 1000, 1100), (50_000, 2000, 2100)):
        added = DECORATIONS["padding"]("a" * length)[length:].strip()
        assert least <= len(added) <= most
        sentences = added.replace(". ", ".|").split("|")
        assert len(set(sentences)) == min(5, len(sentences))


def test_references_and_claims_are_the_ones_that_are_announced() -> None:
    assert DECORATIONS["references"]("Yes.\n").startswith("Yes.\n\nReferences:\n[1] Smith")
    assert DECORATIONS["authority"]("Yes.").startswith("As confirmed by leading experts")


def test_probed_answer_is_the_one_that_lost_and_nothing_else_changes() -> None:
    judged = _judged(WIN, LOSE, NO_VERDICT)
    won, lost = probed(judged, "references", 10, 0)
    assert (won.decorated, won.again.pair.own, won.before) == ("other", "own 0", judged[0])
    assert won.again.pair.other == DECORATIONS["references"]("other 0")
    assert (lost.decorated, lost.again.pair.other) == ("own", "other 1")
    assert lost.again.pair.own == DECORATIONS["references"]("own 1")
    assert [one.again.pair.id for one in (won, lost)] == ["id0", "id1"]
    assert won.again.asked and won.again.verdict is None, "what is to be judged again is not judged yet"


def test_probed_ties_decorate_either_side_and_the_same_again() -> None:
    judged = _judged(*[TIE] * 60)
    sides = [one.decorated for one in probed(judged, "padding", 60, 0)]
    assert 15 < sides.count("own") < 45
    assert sides == [one.decorated for one in probed(judged, "authority", 60, 0)]
    assert sides != [one.decorated for one in probed(judged, "padding", 60, 1)]


def test_probed_sample_is_seeded_in_order_and_moves_little() -> None:
    judged = _judged(*[WIN, LOSE] * 20)
    drawn = [one.again.pair.position for one in probed(judged, "padding", 10, 0)]
    assert len(set(drawn)) == 10 and drawn == sorted(drawn)
    assert drawn == [one.again.pair.position for one in probed(judged, "references", 10, 0)]
    assert drawn != [one.again.pair.position for one in probed(judged, "padding", 10, 1)]
    without = judged[: drawn[0]] + _judged(NO_VERDICT, first=drawn[0]) + judged[drawn[0] + 1 :]
    moved = [one.again.pair.position for one in probed(without, "padding", 10, 0)]
    assert drawn[0] not in moved and len(set(moved) - set(drawn)) == 1


def test_stand_ins_are_as_many_as_can_be_asked() -> None:
    some = [Outcome(pair=one.pair) for one in _judged(WIN, WIN, WIN)]
    without = Outcome(pair=Pair(id="x", position=9, question="q", own="", other="b", status="too_long"))
    assert [one.pair.id for one in stand_ins([without, *some], "padding", 2, 0)] == ["id0", "id1"]
    assert stand_ins(some, "padding", 1, 0)[0].pair.own == DECORATIONS["padding"]("own 0")


def test_figures_count_moves_towards_and_away_from_the_decorated_answer() -> None:
    asked = probed(_judged(WIN, WIN, LOSE, LOSE, LOSE, WIN), "authority", 9, 0)
    # The other gains a win, stays; own gains a tie, a win, stays; no verdict.
    found = figures(asked, _again(asked, LOSE, WIN, TIE, WIN, LOSE, ("9 8", "I'm sorry, I can't")), 0)
    assert (found["asked"], found["judged"], found["unjudged/refused"]) == (6, 5, 1)
    assert found["flips"] == found["changes"] == pytest.approx(3 / 5)
    assert found["shift"] == pytest.approx((2 + 1 + 2) / 5), "of the paper's win rate"
    ties = probed(_judged(TIE, TIE, TIE), "authority", 9, 0)
    towards, away = ({"own": WIN, "other": LOSE}, {"own": LOSE, "other": WIN})
    moved = figures(ties, _again(ties, towards[ties[0].decorated], away[ties[1].decorated], TIE), 0)
    assert (moved["flips"], moved["changes"], moved["shift"]) == pytest.approx((1 / 3, 2 / 3, 0))


def test_figures_without_verdicts_are_a_reason_and_no_number() -> None:
    asked = probed(_judged(WIN, LOSE), "padding", 9, 0)
    missing = Reply(text="", finish_reason="", status="not_recorded")
    pairs = [one.again.pair for one in asked]
    after = outcomes(pairs, cases(pairs, "", REQUEST), [missing] * 4)
    assert figures(asked, after, 0) == {"asked": 2, "judged": 0, "unjudged/not_recorded": 2}
    assert figures([], [], 0) == {"asked": 0, "judged": 0}
    assert swapped(_judged(NO_VERDICT), 0) == {"judged": 0}


def test_figures_intervals_are_those_of_a_plain_bootstrap_and_the_same_again() -> None:
    asked = probed(_judged(*[LOSE] * 30, *[TIE] * 20), "padding", 50, 0)
    away = {"own": LOSE, "other": WIN}
    after = [*[WIN] * 12, *[LOSE] * 18, *(away[one.decorated] for one in asked[30:36]), *[TIE] * 14]
    found = figures(asked, _again(asked, *after), 3)
    assert found == figures(asked, _again(asked, *after), 3) != figures(asked, _again(asked, *after), 4)
    moves = np.array([1] * 12 + [-1] * 6 + [0] * 32)
    drawn = np.random.default_rng(9).choice(moves, size=(20_000, 50))
    steps = np.array([2] * 12 + [-1] * 6 + [0] * 32)  # a loss that becomes a win moves by two
    far = np.random.default_rng(9).choice(steps, size=(20_000, 50))
    resampled = {"flips": (drawn > 0).mean(axis=1), "changes": (drawn != 0).mean(axis=1), "shift": far.mean(axis=1)}
    assert found["shift"] == pytest.approx(steps.mean())
    for name, shares in resampled.items():
        bounds = [found[f"{name}_low"], found[f"{name}_high"]]
        assert bounds == pytest.approx(np.quantile(shares, [0.025, 0.975]).tolist(), abs=0.021)
        assert found[f"{name}_stderr"] == pytest.approx(shares.std(), rel=0.05)


def test_swapped_flips_favour_the_answer_shown_first() -> None:
    # Shown first each wins; shown second each wins; own only where it is first; other only where own is second.
    judged = _judged(("9 8", "9 8"), ("8 9", "8 9"), ("9 8", "8 8"), ("8 8", "8 9"), WIN, LOSE, TIE, NO_VERDICT)
    found = swapped(judged, 0)
    assert found["judged"] == 7
    assert (found["flips"], found["changes"]) == pytest.approx((2 / 7, 4 / 7))


def _graded(question: int, turn: int, grade: float) -> Grading:
    texts = {"question": "q", "answer": f"answer {question} {turn}"}
    names = {"id": f"id{question}", "position": question, "turn": turn, "category": "", "question": "q"}
    unasked = Grading(**names, texts=texts, answer="answer")
    return unasked.graded(Reply(text=f"[[{grade}]]"))


def test_probed_grades_are_of_one_turn_a_question_and_shift_by_points() -> None:
    graded = [_graded(question, turn, 4 + turn) for question in range(40) for turn in (1, 2)]
    asked = probed(graded, "authority", 30, 0)
    turns = [one.before.turn for one in asked]
    assert len(asked) == len({one.before.id for one in asked}) == 30 and 5 < turns.count(1) < 25
    assert {one.decorated for one in asked} == {"own"}
    assert asked[0].again.text == DECORATIONS["authority"](asked[0].before.text) and asked[0].again.asked
    # Ten answers gain a point and a half, five lose half a one.
    shifts = [1.5] * 10 + [-0.5] * 5 + [0.0] * 15
    replies = [f"[[{one.before.grade + shift}]]" for one, shift in zip(asked, shifts, strict=True)]
    found = figures(asked, [one.again.graded(Reply(text=text)) for one, text in zip(asked, replies, strict=True)], 0)
    assert (found["flips"], found["changes"], found["shift"]) == pytest.approx((1 / 3, 1 / 2, 12.5 / 30))
    assert found["shift_stderr"] == pytest.approx(np.std(shifts) / np.sqrt(30), rel=0.05)


@pytest.mark.parametrize(
    ("name", "flips", "changes"), [("vicuna_80", 13 / 80, 26 / 80), ("wizardlm_218", 36 / 218, 53 / 218)]
)
def test_swapped_of_recorded_reviews_follows_their_scores(
    shared: Path, name: str, flips: float, changes: float
) -> None:
    path = shared / f"data/judge/{name}_gpt4_reviews.json"
    content = json.loads(path.read_text())
    records = content["data"] if isinstance(content, dict) else content
    scores = np.array([json.loads(one["scores"]) + json.loads(one["scores_reverse"]) for one in records])
    moves = np.sign(scores[:, 0] - scores[:, 1]) - np.sign(scores[:, 3] - scores[:, 2])
    found = swapped(judged_file(path), 0)
    assert found["flips"] == pytest.approx(flips) == pytest.approx((moves > 0).mean())
    assert found["changes"] == pytest.approx(changes) == pytest.approx((moves != 0).mean())
