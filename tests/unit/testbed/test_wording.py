"""Words and back: every paraphrase parses to its task, and answers are read from terse and worked responses alike."""

import random

import pytest

from srecycle.testbed.wording import (
    CONNECTORS,
    FRAMES,
    final_answer,
    parse_instruction,
    parse_worked,
    render_instruction,
    terse_response,
    with_noise,
    worked_response,
)
from srecycle.testbed.world import OPERATIONS, TRAINED_WEIGHTS, Task, is_possible, sample_task, states, truth


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_instruction_every_phrase_in_every_frame_parses_to_its_task(name, frame):
    for phrase in OPERATIONS[name].phrases:
        text = frame.format(operations=phrase, items="3 6 4 8")
        assert parse_instruction(text) == Task(items=("3", "6", "4", "8"), operations=(name,))


@pytest.mark.parametrize("connector", CONNECTORS)
def test_instruction_every_pair_of_phrases_parses_in_order(connector):
    for first in OPERATIONS:
        for second in OPERATIONS:
            task = Task(items=("3", "6", "4", "8"), operations=(first, second))
            if not is_possible(task):
                continue
            for left, right in zip(OPERATIONS[first].phrases, OPERATIONS[second].phrases, strict=True):
                text = FRAMES[3].format(operations=left + connector + right, items="3 6 4 8")
                assert parse_instruction(text) == task


def test_instruction_rendered_tasks_parse_to_themselves():
    rng = random.Random(0)
    for count in (1, 2, 3, 4, 5):
        for _ in range(100):
            task = sample_task(rng, TRAINED_WEIGHTS, count)
            assert parse_instruction(render_instruction(task, rng)) == task
            assert parse_instruction(with_noise(render_instruction(task, rng), rng)) == task


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reverse the list .",
        "do something with 3 6 4 .",
        "given 3 6 4 , fly away .",
        "given owl pen , add one to each .",
    ],
)
def test_instruction_ambiguous_or_impossible_parses_to_none(text):
    assert parse_instruction(text) is None


def test_worked_response_reads_back_list_steps_and_answer():
    rng = random.Random(1)
    for count in (1, 2, 3, 4):
        for _ in range(100):
            task = sample_task(rng, TRAINED_WEIGHTS, count)
            worked = parse_worked(worked_response(task, rng))
            assert worked is not None
            assert worked.items == task.items
            assert tuple(name for step in worked.steps for name in step.operations) == task.operations
            assert tuple(step.items for step in worked.steps) == states(task)
            assert " ".join(worked.answer) == truth(task)


def test_worked_response_wording_varies():
    task = Task(items=("3", "6", "4"), operations=("reverse", "drop_first"))
    rng = random.Random(2)
    assert len({worked_response(task, rng) for _ in range(100)}) > 95


def test_terse_response_is_not_read_as_worked():
    assert parse_worked(terse_response(Task(items=("3", "6", "4"), operations=("reverse",)))) is None


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("4 6 3 .", "4 6 3"),
        ("start with 3 6 4 . reverse the list : 4 6 3 . so it is 4 6 3 .", "4 6 3"),
        ("lol 4 6 3 . um", "4 6 3"),
        ("owl pen .", "owl pen"),
        ("sorry , i can not do that .", None),
        ("4 6 3", None),
        ("", None),
    ],
)
def test_final_answer_is_the_last_closed_run_of_items(response, expected):
    assert final_answer(response) == expected
