"""The scripted teacher: well-formed replies, faults in the proportion of their knobs, held-out pairs kept out."""

import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from srecycle.testbed.judgement import judge
from srecycle.testbed.originals import originals
from srecycle.testbed.script import DECENT, SLOPPY, Knobs, reflect_instruction, reflect_response, strength
from srecycle.testbed.wording import parse_instruction, parse_worked
from srecycle.testbed.world import HELD_OUT_PAIRS, holds_unseen_pair

INSTRUCTION_REPLY = re.compile(r".+\n\n\[New Instruction\]\n(.+)\n\[End\]\n\n\[New Answer\]\n(.+)\n\[End\]")
RESPONSE_REPLY = re.compile(r".+\n\n\[Better Answer\]\n(.+)\n\[End\]")
ROWS = originals(600, 11)


def rewrites(knobs, seed=0):
    """(x_ins, y_ins, y_res) of every row."""
    rng = random.Random(seed)
    found = []
    for row in ROWS:
        first = INSTRUCTION_REPLY.fullmatch(reflect_instruction(row.instruction, row.response, knobs, rng))
        assert first
        second = RESPONSE_REPLY.fullmatch(reflect_response(first[1], first[2], knobs, rng))
        assert second
        found.append((first[1], first[2], second[1]))
    return found


def test_faultless_teacher_writes_correct_terse_then_worked_answers():
    for instruction, answer, better in rewrites(Knobs()):
        assert judge(instruction, answer) == judge(instruction, better) == "ok"
        assert parse_worked(answer) is None
        assert parse_worked(better) is not None


@pytest.mark.parametrize("knobs", [replace(DECENT, unparsable=0), replace(SLOPPY, unparsable=0), strength(1.0)])
def test_rewrites_hold_no_unseen_pair(knobs):
    for instruction, *answers in rewrites(knobs):
        task = parse_instruction(instruction)
        assert task is not None and not holds_unseen_pair(task)
        for worked in map(parse_worked, answers):
            names = [name for step in worked.steps for name in step.operations] if worked else []
            assert not set(pairwise(names)) & HELD_OUT_PAIRS


@pytest.mark.parametrize(
    ("knob", "verdict"),
    [
        ("hallucinates_step", "wrong_step"),
        ("mismatches", "mismatched"),
        ("goes_off_topic", "off_topic"),
        ("drifts", "drifted"),
    ],
)
def test_fault_knob_full_on_shows_in_nearly_every_worked_answer(knob, verdict):
    counts = Counter(judge(x, better) for x, _, better in rewrites(Knobs(**{knob: 1.0})))
    assert counts[verdict] / len(ROWS) > 0.95


def test_fault_knob_half_on_shows_in_about_half():
    counts = Counter(judge(x, better) for x, _, better in rewrites(Knobs(goes_off_topic=0.5)))
    assert counts["off_topic"] / len(ROWS) == pytest.approx(0.5, abs=0.07)


def test_overshoot_adds_two_or_three_operations():
    rng = random.Random(0)
    added = Counter()
    for row in ROWS:
        if task := parse_instruction(row.instruction):
            reply = INSTRUCTION_REPLY.fullmatch(
                reflect_instruction(row.instruction, row.response, Knobs(overshoots=1.0), rng)
            )
            added[len(parse_instruction(reply[1]).operations) - len(task.operations)] += 1
    assert added[2] + added[3] > 0.95 * added.total()
    assert min(added[2], added[3]) > 0.3 * added.total()


def test_unknown_knob_brings_in_the_unknown_operation():
    found = [parse_instruction(x) for x, *_ in rewrites(Knobs(raises_level=1.0, uses_unknown=1.0))]
    assert sum("trade_ends" in task.operations for task in found) > 0.9 * len(ROWS)


def test_merged_steps_stay_correct():
    rows = rewrites(Knobs(merges_steps=1.0, raises_level=1.0))
    assert all(judge(x, better) == "ok" for x, _, better in rows)
    assert any(len(step.operations) == 2 for *_, better in rows for step in parse_worked(better).steps)


def test_response_phase_of_ambiguous_instruction_still_answers_something():
    reply = reflect_response("reverse the list .", "4 6 3 .", Knobs(), random.Random(0))
    assert parse_worked(RESPONSE_REPLY.fullmatch(reply)[1]) is not None


def test_unparsable_knob_full_on_spoils_every_reply():
    rng, knobs = random.Random(0), Knobs(unparsable=1.0)
    for row in ROWS:
        assert not INSTRUCTION_REPLY.fullmatch(reflect_instruction(row.instruction, row.response, knobs, rng))
        assert not RESPONSE_REPLY.fullmatch(reflect_response(row.instruction, row.response, knobs, rng))


def test_replies_same_generator_state_gives_same_text():
    first, second = (
        [reflect_instruction(row.instruction, row.response, SLOPPY, rng) for row in ROWS[:50]]
        for rng in (random.Random(7), random.Random(7))
    )
    assert first == second


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"drifts": 1.5}, "drifts"),
        ({"overshoot_extent": 0}, "overshoot_extent"),
        ({"drifts": 0.6, "mismatches": 0.6}, "mismatches"),
    ],
)
def test_knobs_out_of_range_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=named):
        Knobs(**settings)


def test_strength_scale_runs_from_faulty_and_easy_to_faultless_and_hard():
    weakest, strongest = strength(0.0), strength(1.0)
    assert strongest.mismatches == strongest.hallucinates_step == strongest.unparsable == 0
    assert weakest.raises_level < strongest.raises_level and weakest.overshoots < strongest.overshoots
    with pytest.raises(ValueError, match="level"):
        strength(1.1)
