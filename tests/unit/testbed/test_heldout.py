"""Held-out splits: right answers, the promised difficulty, and a task folder that lm-eval runs as written."""

import json
import random

import pytest

from srecycle.testbed.format import forward_prompt
from srecycle.testbed.heldout import GROUP, SPLITS, held_out, task_name, write_task
from srecycle.testbed.wording import final_answer, parse_instruction, terse_response, worked_response
from srecycle.testbed.world import HELD_OUT_PAIRS, OPERATIONS, truth


@pytest.mark.parametrize("split", SPLITS)
def test_held_out_answers_are_the_truth_and_no_copy_of_the_list(split):
    for item in held_out(split, 150, 0):
        task = parse_instruction(item["question"])
        assert item["answer"] == truth(task)
        assert item["answer"] != " ".join(task.items)


@pytest.mark.parametrize(
    ("split", "counts", "lengths"),
    [
        ("known", {1}, {3, 4, 5}),
        ("partial", {1}, {3, 4, 5}),
        ("composed_2", {2}, {3, 4, 5}),
        ("unseen_2", {2}, {3, 4, 5}),
        ("composed_3", {3}, {3, 4, 5}),
        ("longer", {1, 2}, {6}),
    ],
)
def test_held_out_split_has_its_operations_and_lengths(split, counts, lengths):
    tasks = [parse_instruction(item["question"]) for item in held_out(split, 200, 1)]
    assert {len(task.operations) for task in tasks} == counts
    assert {len(task.items) for task in tasks} == lengths
    if split in ("known", "partial"):
        assert {OPERATIONS[task.operations[0]].familiarity for task in tasks} == {split}
    assert all((task.operations in HELD_OUT_PAIRS) == (split == "unseen_2") for task in tasks)


def test_held_out_same_seed_gives_same_items_and_another_seed_others():
    assert held_out("known", 50, 3) == held_out("known", 50, 3) != held_out("known", 50, 4)


def test_held_out_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match="easy"):
        held_out("easy", 1, 0)


class Answering:
    """Answers by truth, tersely or worked in turn, or not at all: an lm-eval model without a network."""

    @staticmethod
    def build(wrong_split):
        from lm_eval.api.model import LM

        rng = random.Random(0)
        refused = {item["question"] for item in held_out(wrong_split, 12, 7)}

        class Model(LM):
            def __init__(self):
                super().__init__()
                self.prompts = []

            def generate_until(self, requests):
                return [self.reply(request.args[0]) for request in requests]

            def reply(self, prompt):
                self.prompts.append(prompt)
                question = prompt.removeprefix("<s> question : ").removesuffix(" reply :")
                task = parse_instruction(question)
                if question in refused:
                    return "sorry , i can not do that ."
                return terse_response(task) if rng.random() < 0.5 else worked_response(task, rng)

            def loglikelihood(self, requests):
                raise NotImplementedError

            def loglikelihood_rolling(self, requests):
                raise NotImplementedError

        return Model()


def test_task_folder_run_by_lm_eval_scores_right_answers_one_and_refusals_zero(tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_task(tmp_path, 12, 7)
    model = Answering.build("partial")
    manager = TaskManager(include_defaults=False, include_path=str(tmp_path))
    results = simple_evaluate(model=model, tasks=[GROUP], task_manager=manager)["results"]
    for split in SPLITS:
        assert results[task_name(split)]["exact_match,final_answer"] == (0.0 if split == "partial" else 1.0)
        assert "exact_match_stderr,final_answer" in results[task_name(split)]
    assert results[GROUP]["exact_match,final_answer"] == pytest.approx(5 / 6)
    questions = [json.loads(line)["question"] for line in (tmp_path / "known.jsonl").read_text().splitlines()]
    assert {"<s> " + forward_prompt(question) for question in questions} <= set(model.prompts)


def test_refusal_and_aside_hold_no_final_answer():
    assert final_answer("so you want to reverse the list for 3 6 4 ?") is None
