"""Which sequences are computed together: pure functions of ids."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.student.encoding import Encoded
from srecycle.student.inference import batches
from srecycle.student.sharing import Line, lines_of


@st.composite
def _trees(draw: st.DrawFn) -> list[Encoded]:
    """Contexts that grow out of one another, each with some targets: prefixes, stems and branches of all lengths."""
    rng = draw(st.randoms(use_true_random=False))
    ids = [rng.randrange(4) for _ in range(200)]
    contexts = [tuple(ids[: rng.choice([0, 1, 3, 9, 20, 40])]) for _ in range(draw(st.integers(1, 4)))]
    found = []
    for _ in range(draw(st.integers(1, 60))):
        context = rng.choice(contexts) + tuple(rng.randrange(3) for _ in range(rng.choice([0, 0, 1, 5, 12])))
        for _ in range(rng.choice([1, 1, 2, 4])):
            target = tuple(rng.randrange(5) for _ in range(rng.randint(1 if context else 2, 9)))
            found.append(Encoded(ids=context + target, target_start=len(context)))
    return sorted(set(found), key=lambda one: (one.target_start, one.ids))


def _context(one: Encoded) -> tuple[int, ...]:
    return one.ids[: max(one.target_start, 1)]


def _family(count: int, prefix: Sequence[int], start: int = 0) -> list[Encoded]:
    """Sequences with contexts of `prefix` and 10 tokens of their own."""
    found = []
    for number in range(start, start + count):
        context = (*prefix, *range(1000 + 20 * number, 1010 + 20 * number))
        found.append(Encoded(ids=(*context, 7, 8), target_start=len(context)))
    return found


@given(_trees(), st.sampled_from([0, 12, 30, 60, 10_000]))
def test_lines_hold_every_sequence_once_and_whole(sequences: list[Encoded], window: int) -> None:
    lines = lines_of(sequences, window)
    assert Counter(one for line in lines for one in line.sequences) == Counter(sequences)
    for line in lines:
        for one in line.sequences:
            assert line.prefix + line.stem == _context(one)
        targets = [token for one in line.sequences for token in one.ids[max(one.target_start, 1) : -1]]
        assert line.ids == (*line.stem, *targets)
        assert len(line.stem) >= 1
        assert line.shares == (bool(line.prefix) or len(line.sequences) > 1)


@given(_trees(), st.sampled_from([0, 12, 30, 60, 10_000]))
def test_lines_that_share_stay_within_the_window(sequences: list[Encoded], window: int) -> None:
    for line in lines_of(sequences, window):
        if line.shares:
            assert len(line.prefix) + len(line.stem) + sum(one.target_tokens for one in line.sequences) <= window
    assert not any(line.shares for line in lines_of(sequences, 0))


@given(_trees(), st.randoms(use_true_random=False))
def test_lines_are_the_same_in_any_order(sequences: list[Encoded], rng: random.Random) -> None:
    before = lines_of(sequences, 60)
    rng.shuffle(sequences)
    assert lines_of(sequences, 60) == before


@given(_trees(), st.sampled_from([0, 30, 60]))
def test_lines_that_share_cost_no_more_than_sequences_by_themselves(sequences: list[Encoded], window: int) -> None:
    fed = sum(len(line.ids) for line in lines_of(sequences, window))
    assert fed <= sum(len(one.ids) - 1 for one in sequences)


@given(_trees(), st.sampled_from([0, 30, 60]), st.integers(1, 200))
@example(_family(20, range(12)), 60, 1)
def test_batches_keep_the_budget_and_mix_neither_prefixes_nor_windows(
    sequences: list[Encoded], window: int, budget: int
) -> None:
    lines = lines_of(sequences, window)
    found = list(batches(lines, lambda: budget, 30))
    assert [line for batch in found for line in batch] == lines
    for batch in found:
        assert len({(line.prefix, line.shares, len(line.ids) > 30) for line in batch}) == 1
        longest = max(len(line.ids) for line in batch)
        assert len(batch[0].ids) == longest, "the longest line comes first: memory runs out at once or not at all"
        assert len(batch) == 1 or longest * len(batch) <= budget
        padding = longest * len(batch) - sum(len(line.ids) for line in batch)
        assert padding <= 0.05 * longest * len(batch) or longest * len(batch) <= budget / 4
    for batch, after in pairwise(found):
        alike = (batch[0].prefix, batch[0].shares, len(batch[0].ids) > 30)
        if alike == (after[0].prefix, after[0].shares, len(after[0].ids) > 30):
            size = len(batch[0].ids) * (len(batch) + 1)
            padding = size - sum(len(line.ids) for line in [*batch, after[0]])
            fits = size <= budget and (padding <= 0.05 * size or size <= budget / 4)
            assert not fits, "the next line would have fitted"


def test_batches_follow_a_budget_that_is_lowered_on_the_way() -> None:
    lines = [
        Line(prefix=(), stem=(n,) * 10, sequences=(Encoded(ids=(n,) * 10 + (1,), target_start=10),)) for n in range(9)
    ]
    budgets = [40]
    sizes = []
    for batch in batches(lines, lambda: budgets[-1], 100):
        sizes.append(len(batch))
        budgets.append(20)
    assert sizes == [4, 2, 2, 1]


@pytest.mark.parametrize(("count", "shared"), [(15, 0), (16, 12), (40, 12)])
def test_lines_prefix_is_apart_from_sixteen_sequences_on(count: int, shared: int) -> None:
    assert {len(line.prefix) for line in lines_of(_family(count, range(12)), 100)} == {shared}


@pytest.mark.parametrize(("length", "shared"), [(7, 0), (8, 8)])
def test_lines_prefix_is_apart_from_eight_tokens_on(length: int, shared: int) -> None:
    assert {len(line.prefix) for line in lines_of(_family(20, range(length)), 100)} == {shared}


def test_lines_each_family_has_its_deepest_prefix() -> None:
    """Two kinds of prompt that begin alike: each prefix is as long as its own kind agrees."""
    opening = tuple(range(500, 510))
    families = _family(20, (*opening, *range(600, 615))) + _family(20, (*opening, *range(700, 730)), start=20)
    families += _family(17, opening, start=40)
    prefixes = Counter(len(line.prefix) for line in lines_of(families, 200))
    assert prefixes == {25: 20, 40: 20, 10: 17}


def test_lines_deep_family_is_found_behind_a_short_opening() -> None:
    """A format that opens with five tokens, then a request in half of the prompts: that half shares both."""
    opening = (1, 2, 3, 4, 5)
    request = (*opening, *range(600, 607))
    prefixes = Counter(
        len(line.prefix) for line in lines_of(_family(20, request) + _family(20, opening, start=20), 200)
    )
    assert prefixes == {12: 20, 0: 20}


def test_lines_small_family_shares_what_its_larger_one_does() -> None:
    """Five sequences that agree further than the others are too few for a prefix of their own, and use the common."""
    opening = tuple(range(500, 510))
    families = _family(20, opening) + _family(5, (*opening, *range(600, 640)), start=20)
    assert Counter(len(line.prefix) for line in lines_of(families, 200)) == {10: 25}


def test_lines_equal_contexts_are_one_stem_with_branches() -> None:
    context = tuple(range(20))
    sequences = [Encoded(ids=(*context, n, n), target_start=20) for n in range(30, 35)]
    (line,) = lines_of(sequences, 100)
    assert (line.prefix, line.stem, line.sequences) == ((), context, tuple(sequences))
    assert line.ids == (*context, 30, 31, 32, 33, 34)
    assert sorted(len(one.sequences) for one in lines_of(sequences, 25)) == [1, 2, 2]


def test_lines_of_nothing_are_none() -> None:
    assert lines_of([], 100) == []
    assert list(batches([], lambda: 5, 100)) == []
