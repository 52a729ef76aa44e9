"""The world's truth against answers written down by hand, and the promises of its samplers."""

import random
from itertools import pairwise

import pytest

from srecycle.testbed.world import (
    HELD_OUT_PAIRS,
    OPERATIONS,
    TRAINED_WEIGHTS,
    Task,
    holds_unseen_pair,
    is_possible,
    sample_task,
    sample_unseen_pair,
    truth,
    with_added_operations,
    with_replaced_operation,
)

BY_HAND = {
    "reverse": ("3 6 4", "4 6 3"),
    "add_one": ("3 9 4", "4 0 5"),
    "drop_first": ("owl pen jar", "pen jar"),
    "drop_last": ("owl pen jar", "owl pen"),
    "rotate_left": ("1 2 3 4", "2 3 4 1"),
    "largest": ("3 9 4 9", "9"),
    "count": ("owl pen jar key", "4"),
    "subtract_one": ("3 0 4", "2 9 3"),
    "sort": ("5 2 9 2", "2 2 5 9"),
    "rotate_right": ("1 2 3 4", "4 1 2 3"),
    "smallest": ("3 9 1 4", "1"),
    "repeat_first": ("owl pen jar", "owl owl pen jar"),
    "trade_ends": ("1 2 3 4", "4 2 3 1"),
}


def task_of(items: str, *operations: str) -> Task:
    return Task(items=tuple(items.split()), operations=operations)


def test_operations_table_is_covered_by_hand_written_answers():
    assert set(OPERATIONS) == set(BY_HAND)


@pytest.mark.parametrize("name", BY_HAND)
def test_truth_single_operation_equals_hand_written_answer(name):
    items, expected = BY_HAND[name]
    assert truth(task_of(items, name)) == expected


@pytest.mark.parametrize(
    ("items", "operations", "expected"),
    [
        ("3 6 4", ("reverse", "drop_first"), "6 3"),
        ("3 6 4", ("drop_first", "reverse"), "4 6"),
        ("9 1 5", ("add_one", "sort", "rotate_left"), "2 6 0"),
        ("owl pen jar", ("repeat_first", "drop_last", "count"), "3"),
    ],
)
def test_truth_composition_is_applied_first_to_last(items, operations, expected):
    assert truth(task_of(items, *operations)) == expected


@pytest.mark.parametrize(
    ("items", "operations"),
    [
        ("owl pen jar", ("add_one",)),
        ("3 6 4", ("largest", "reverse")),
        ("3 6 4", ("drop_first", "drop_last", "drop_first")),
        ("3 6 4", ()),
    ],
)
def test_possibility_impossible_chain_is_refused(items, operations):
    assert not is_possible(task_of(items, *operations))


def test_held_out_pairs_are_a_quarter_and_leave_every_operation_trainable_pairs():
    names = list(TRAINED_WEIGHTS)
    pairs = [(a, b) for a in names for b in names if a != b and not OPERATIONS[a].ends]
    assert len(HELD_OUT_PAIRS) == len(pairs) // 4
    for name in names:
        assert any(name in pair for pair in pairs if pair not in HELD_OUT_PAIRS)


def test_sampled_tasks_are_possible_and_hold_no_unseen_pair():
    rng = random.Random(3)
    for count in (1, 2, 3, 4):
        for _ in range(200):
            task = sample_task(rng, TRAINED_WEIGHTS, count)
            assert len(task.operations) == count
            assert is_possible(task)
            assert not set(pairwise(task.operations)) & HELD_OUT_PAIRS
            assert truth(task) != " ".join(task.items)


def test_sampled_unseen_pair_is_a_held_out_pair():
    rng = random.Random(4)
    tasks = [sample_unseen_pair(rng) for _ in range(200)]
    assert all(task.operations in HELD_OUT_PAIRS and is_possible(task) for task in tasks)


def test_added_and_replaced_operations_keep_the_held_out_pairs_out():
    rng = random.Random(5)
    for _ in range(200):
        task = sample_task(rng, TRAINED_WEIGHTS, 2)
        longer = with_added_operations(task, 2, rng, TRAINED_WEIGHTS)
        other = with_replaced_operation(task, rng, TRAINED_WEIGHTS)
        assert not holds_unseen_pair(longer) and not holds_unseen_pair(other)
        assert len(other.operations) == 2
        assert longer.items == task.items


def test_sample_task_without_a_possible_choice_names_the_operations():
    with pytest.raises(ValueError, match="largest"):
        sample_task(random.Random(0), {"largest": 1.0}, 2)
