"""Each verdict on a pair written by hand."""

import pytest

from srecycle.testbed.judgement import REFUSALS, VERDICTS, judge

ASKED = "take 3 6 4 8 and reverse the list and then drop the first ."
PAIRS = {
    "ok": [
        (ASKED, "4 6 3 ."),
        (ASKED, "start with 3 6 4 8 . reverse the list : 8 4 6 3 . drop the first : 4 6 3 . so it is 4 6 3 ."),
        (ASKED, "here is 3 6 4 8 . turn the list around plus drop the first gives 4 6 3 . answer : 4 6 3 ."),
    ],
    "noisy": [(ASKED, "lol 4 6 3 . um"), ("uh " + ASKED, "4 6 3 .")],
    "ambiguous": [("do something with 3 6 4 .", "4 6 3 ."), ("reverse the list .", "4 6 3 .")],
    "refusal": [(ASKED, text) for text in REFUSALS],
    "off_topic": [(ASKED, "well , music makes me happy ."), (ASKED, "4 6 3"), (ASKED, "")],
    "mismatched": [
        (ASKED, "1 2 9 ."),
        (ASKED, "owl pen ."),
        (ASKED, "start with 3 6 4 9 . reverse the list : 9 4 6 3 . drop the first : 4 6 3 . so it is 4 6 3 ."),
    ],
    "drifted": [
        (ASKED, "start with 3 6 4 8 . reverse the list : 8 4 6 3 . sort the list : 3 4 6 8 . so it is 3 4 6 8 .")
    ],
    "wrong_step": [
        (ASKED, "start with 3 6 4 8 . reverse the list : 8 4 6 9 . drop the first : 4 6 9 . so it is 4 6 9 ."),
        (ASKED, "start with 3 6 4 8 . reverse the list : 8 4 6 3 . drop the first : 4 6 3 . so it is 4 6 8 ."),
        (ASKED, "start with 3 6 4 8 . reverse the list : 9 4 6 3 . drop the first : 4 6 3 . so it is 4 6 3 ."),
    ],
    "wrong_answer": [(ASKED, "4 3 6 ."), (ASKED, "8 4 6 3 .")],
}


def test_verdicts_are_all_covered_by_hand_written_pairs():
    assert set(PAIRS) == set(VERDICTS)


@pytest.mark.parametrize(("verdict", "pair"), [(verdict, pair) for verdict, pairs in PAIRS.items() for pair in pairs])
def test_judge_hand_written_pair_gets_its_verdict(verdict, pair):
    assert judge(*pair) == verdict
