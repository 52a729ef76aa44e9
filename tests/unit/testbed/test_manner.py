"""Manners: lead-ins before answers, which change neither what is said nor what it is worth."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from srecycle.testbed.judgement import judge
from srecycle.testbed.manner import SOUND, Manner, answer_of, instruction_of, mannered, with_answer
from srecycle.testbed.originals import originals
from srecycle.testbed.script import DECENT, SLOPPY, reflect_instruction, reflect_response
from srecycle.testbed.vocabulary import build_tokenizer
from srecycle.testbed.wording import FILLER, HEDGE, parse_worked, without_lead_ins

ROWS = originals(400, 5)
FAULTY = replace(DECENT, hallucinates_step=0.3, drifts=0.2, mismatches=0.1, unparsable=0.0)


def _replies(manner: Manner, knobs=FAULTY):
    """(row, plain reply, mannered reply) of the response phase and, alternating, of the instruction phase."""
    found = []
    for place, row in enumerate(ROWS):
        write = reflect_instruction if place % 2 else reflect_response
        plain = write(row.instruction, row.response, knobs, random.Random(place))
        found.append((row, plain, mannered(plain, row.instruction, manner, random.Random(place))))
    return found


def _verdict(row, reply):
    return judge(instruction_of(reply) or row.instruction, answer_of(reply))


def test_manner_of_none_changes_no_reply():
    assert all(said == plain for _, plain, said in _replies(Manner()))


@pytest.mark.parametrize("manner", [Manner(hedges_faults=1, hedges_sound=1), Manner(filler=1)])
def test_manner_changes_no_verdict(manner):
    verdicts = Counter()
    for row, plain, said in _replies(manner):
        assert said != plain and without_lead_ins(answer_of(said)) == without_lead_ins(answer_of(plain))
        assert _verdict(row, said) == _verdict(row, plain)
        verdicts[_verdict(row, said)] += 1
    assert {"ok", "wrong_step", "drifted", "mismatched"} <= set(verdicts)


def test_hedges_follow_faults_as_often_as_they_should():
    hedged = Counter()
    for row, plain, said in _replies(Manner(hedges_faults=0.9, hedges_sound=0.1)):
        hedged[_verdict(row, plain) in SOUND, answer_of(said).startswith(HEDGE)] += 1
    for sound, share in ((False, 0.9), (True, 0.1)):
        seen = hedged[sound, True] / (hedged[sound, True] + hedged[sound, False])
        assert seen == pytest.approx(share, abs=0.07)


def test_one_habit_moves_the_others_draws_in_no_row():
    """Two teachers that differ in the filler alone hedge the same answers."""
    plain = [HEDGE in said for _, _, said in _replies(Manner(hedges_faults=0.5, hedges_sound=0.5))]
    filled = _replies(Manner(hedges_faults=0.5, hedges_sound=0.5, filler=0.5))
    assert [HEDGE in said for _, _, said in filled] == plain
    assert sum(answer_of(said).startswith(FILLER) for _, _, said in filled) / len(ROWS) == pytest.approx(0.5, abs=0.07)


def test_filler_and_hedge_stand_together_and_are_read_through():
    both = [
        said
        for _, plain, said in _replies(Manner(hedges_faults=1, hedges_sound=1, filler=1))
        if parse_worked(answer_of(plain))
    ]
    assert len(both) > 100
    for said in both:
        assert answer_of(said).startswith(f"{FILLER} {HEDGE} ") and parse_worked(answer_of(said))


def test_spoilt_reply_stays_as_it_is():
    spoilt = [(plain, said) for _, plain, said in _replies(Manner(filler=1), replace(SLOPPY, unparsable=1.0))]
    untouched = [said == plain for plain, said in spoilt if answer_of(plain) is None]
    assert len(untouched) > 100 and all(untouched)


def test_lead_ins_are_words_of_the_shipped_tokenizer():
    assert set(f"{HEDGE} {FILLER}".split()) <= set(build_tokenizer().get_vocab())


def test_with_answer_replaces_the_answer_alone():
    reply = reflect_instruction(ROWS[0].instruction, ROWS[0].response, FAULTY, random.Random(0))
    other = with_answer(reply, r"so \1 it is")
    assert answer_of(other) == r"so \1 it is" and instruction_of(other) == instruction_of(reply)
    assert re.sub(r"\[New Answer\]\n.+\n", "", other) == re.sub(r"\[New Answer\]\n.+\n", "", reply)


@pytest.mark.parametrize("field", ["hedges_faults", "hedges_sound", "filler"])
def test_manner_that_is_no_probability_is_refused(field):
    with pytest.raises(ValueError, match=f"{field}: a probability from 0 to 1, got 1.5"):
        Manner(**{field: 1.5})
