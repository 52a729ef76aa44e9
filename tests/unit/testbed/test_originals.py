"""Originals: labels that the judge confirms, shares as asked, the same list for the same seed."""

import random
from collections import Counter

import pytest

from srecycle.testbed.judgement import judge
from srecycle.testbed.originals import MIX, originals
from srecycle.testbed.wording import parse_instruction
from srecycle.testbed.world import holds_unseen_pair


def test_originals_labels_are_the_verdicts_on_their_texts():
    assert all(judge(row.instruction, row.response) == row.label for row in originals(1500, 0))


def test_originals_shares_follow_the_mix():
    counts = Counter(row.label for row in originals(2500, 1))
    assert set(counts) == set(MIX)
    for label, share in MIX.items():
        assert counts[label] / 2500 == pytest.approx(share, abs=0.03)


def test_originals_hold_no_unseen_pair():
    tasks = [parse_instruction(row.instruction) for row in originals(1500, 2)]
    assert not any(holds_unseen_pair(task) for task in tasks if task)


def test_originals_same_seed_gives_same_rows_whatever_the_global_generator():
    random.seed(1)
    first = originals(200, 5)
    random.seed(2)
    assert first == originals(200, 5)
    assert first != originals(200, 6)


@pytest.mark.parametrize("mix", [{"perfect": 1.0}, {"ok": -1.0, "noisy": 2.0}, {"ok": 0.0}, {}])
def test_originals_impossible_mix_is_refused_by_name(mix):
    with pytest.raises(ValueError, match="mix"):
        originals(1, 0, mix)
