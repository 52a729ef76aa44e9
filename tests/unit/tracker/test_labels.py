"""How runs are called, and what dashboards filter by."""

import pytest

from srecycle.tracker.labels import RESULTS, flat_config, results, run_name, thresholds

CONFIG = {
    "class": "x.Experiment",
    "revision": 3,
    "data": {"seed": 4, "count": 48},
    "keep": {"ifd_max": {"below": 0.9, "revision": 1}, "top": {"fraction": 0.1, "rows": None, "highest": True}},
    "selector": {"instruction": {"margin": 0.0, "seed": 5}, "response": {"margin": -0.1, "by": "ifd"}},
    "trainer": {"learning_rate": 1e-4, "seed": 4},
}


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "arm"),
        (["experiment=demo/random", "name=arm", "group=g", "store=/x", "tracker=wandb", "tracker.tags=[a]"], "arm"),
        (["keep.ifd_max.below=0.9", "seed=1"], "arm (keep.ifd_max.below=0.9, seed=1)"),
        (["data.path=/long/way/to/alpaca.json"], "arm (data.path=alpaca.json)"),
        (["+keep@keep.share=top", "keep=[ifd_max,top]"], "arm (keep@keep.share=top, keep=[ifd_max,top])"),
        (["keep=[a/b,c/d]"], "arm (keep=[a/b,c/d])"),
    ],
)
def test_run_name_tells_what_was_set(overrides: list[str], name: str) -> None:
    assert run_name("arm", overrides) == name


def test_run_name_of_many_overrides_fits_where_names_are_shown() -> None:
    name = run_name("arm", [f"key_{number}=value" for number in range(50)])
    assert len(name) == 120 and name.endswith("…")


def test_thresholds_are_the_numbers_of_selectors_and_filters() -> None:
    assert thresholds(CONFIG) == {
        "keep.ifd_max.below": 0.9,
        "keep.top.fraction": 0.1,
        "selector.instruction.margin": 0.0,
        "selector.response.margin": -0.1,
    }


def test_flat_config_shares_no_name_with_what_a_sweep_locks() -> None:
    event = {
        "event": "run",
        "name": "arm",
        "choices": {"teacher": "scripted", "selector@selector.response": "ifd"},
        "overrides": ["seed=4"],
        "config": CONFIG,
        "keys": {"evaluate/testbed": "ab"},
    }
    flat = flat_config(event)
    assert not [name for name in flat if "." in name], "W&B reads a dot as the way into a nested value"
    assert flat["cfg"] == CONFIG
    assert {name: value for name, value in flat.items() if name != "cfg"} == {
        "arm": "arm",
        "choice/teacher": "scripted",
        "choice/selector/response": "ifd",
        "pair/teacher": "scripted",
        "pair/student": "student",
        "key/evaluate/testbed": "ab",
        "overrides": ["seed=4"],
        "seed/data": 4,
        "seed/selector/instruction": 5,
        "seed/trainer": 4,
        "threshold/keep/ifd_max/below": 0.9,
        "threshold/keep/top/fraction": 0.1,
        "threshold/selector/instruction/margin": 0.0,
        "threshold/selector/response/margin": -0.1,
    }


PAIRED = {
    "event": "run",
    "name": "arm",
    "choices": {"teacher": "openai", "student": "hf"},
    "overrides": [
        "teacher.model=gpt-4.1-mini",
        "teacher.budget_usd=20",
        "+student.path=/long/way/to/model",
        "student.device=cpu",
        "seed=3",
    ],
    "config": {"teacher": {"model": "gpt-4.1-mini"}, "student": {"path": "sha256:ab", "dtype": "float32"}},
    "keys": {},
}


def test_teacher_and_student_are_told_apart_by_what_decides_a_result() -> None:
    flat = flat_config(PAIRED)
    assert flat["pair/teacher"] == "openai model=gpt-4.1-mini"
    assert flat["pair/student"] == "hf path=model"


def test_results_are_the_evaluations_figures_beside_who_taught_whom() -> None:
    summary = {
        "assemble/kept": 3,
        "evaluate/a/accuracy": 1,
        "evaluate/a/accuracy_stderr": 0.1,
        "evaluate/a/version": "2",
        "evaluate/a/whole": True,
        "evaluate/a/unread": None,
    }
    assert len(RESULTS) == 5
    who = ["openai model=gpt-4.1-mini", "hf path=model", "arm"]
    assert results(PAIRED, summary) == [[*who, "evaluate/a/accuracy", 1.0]]
