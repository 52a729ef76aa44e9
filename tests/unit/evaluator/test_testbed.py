"""The examination tells splits in domain and out of distribution apart."""

import math
from pathlib import Path

import pytest

from srecycle.evaluator import testbed
from srecycle.evaluator.lm_eval_results import Reported
from srecycle.testbed.heldout import task_name
from tests.unit.evaluator.benchmarks import subject, work

BASE = Path(__file__).parents[3] / "srecycle" / "testbed" / "bases" / "weak"


def test_testbed_reports_its_splits_their_mean_and_the_gap(tmp_path: Path) -> None:
    metrics = testbed.TestbedEvaluator(items=2).evaluate(subject(BASE), work(tmp_path))

    sides = {"known", "partial", "composed_2", "composed_3"}, {"unseen_2", "longer"}
    names = {*sides[0], *sides[1], "mean", "in_domain", "out_of_distribution", "gap"}
    assert set(metrics) == {f"{kind}/{name}" for kind in ("accuracy", "accuracy_stderr") for name in names}
    assert (tmp_path / "out" / "samples.jsonl").read_text().count("\n") == 12


def test_testbed_gap_is_the_mean_in_domain_less_that_out_of_distribution() -> None:
    inside = {"known": 0.9, "partial": 0.7, "composed_2": 0.6, "composed_3": 0.4}
    outside = {"unseen_2": 0.3, "longer": 0.2}
    figures = {f"{task_name(name)}/exact_match,final_answer": value for name, value in (inside | outside).items()}
    errors = {f"{task_name(name)}/exact_match_stderr,final_answer": 0.02 for name in inside | outside}

    metrics = testbed._gap(Reported(metrics=figures | errors))

    assert metrics["accuracy/in_domain"] == pytest.approx(0.65)
    assert metrics["accuracy/out_of_distribution"] == pytest.approx(0.25)
    assert metrics["accuracy/gap"] == pytest.approx(0.4)
    assert metrics["accuracy_stderr/gap"] == pytest.approx(0.02 * math.hypot(1 / 2, 1 / math.sqrt(2)))
