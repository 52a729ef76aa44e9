"""The whole chain on the micro-world: what runs, what is shared, and what is left alone."""

import json

import pyarrow.parquet as pq
import pytest

from srecycle.runner import planned
from tests.e2e.conftest import SMALL, Go, Make, ran

pytestmark = pytest.mark.e2e


ALL = {
    "source",
    "reflect_instruction",
    "reflect_response",
    "likelihoods",
    "scores",
    "select_instruction",
    "select_response",
    "assemble",
    "train",
    "evaluate/testbed",
}


def test_chain_selective_makes_every_stage_and_then_finds_it(go: Go) -> None:
    first, second = go(*SMALL), go(*SMALL)

    assert ran(first) == ALL and first.status == "finished"
    assert ran(second) == set()
    assert first.metrics == second.metrics
    assert 0 <= first.metrics["evaluate/testbed/accuracy/mean"] <= 1
    decisions = pq.read_table(first.artifact("select_response") / "decisions.parquet").to_pylist()
    training = pq.read_table(first.artifact("assemble") / "training.parquet").to_pylist()
    assert len(decisions) == len(training) == first.metrics["source/rows"] == 48
    chosen = {line["id"]: line["chosen"] for line in decisions}
    assert all(line["version"] == chosen[line["id"]] for line in training)
    kept = [line for line in training if line["kept"]]
    assert len(kept) == first.metrics["train/rows"] > 0
    assert all(line["ifd"] < 1 and line["r_ifd"] < 1 and line["version"] in ("response", "both") for line in kept)
    assert all(line["reason"] for line in training if not line["kept"])


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (
            "selector@selector.instruction=never",
            {"select_instruction", "select_response", "assemble", "train", "evaluate/testbed"},
        ),
        ("selector@selector.response=perplexity", {"select_response", "assemble", "train", "evaluate/testbed"}),
        ("selector.response.tie=challenger", {"select_response", "assemble", "train", "evaluate/testbed"}),
        ("keep.ifd_max.below=0.9", {"assemble", "train", "evaluate/testbed"}),
        ("trainer.learning_rate=1e-4", {"train", "evaluate/testbed"}),
        ("evaluator.testbed.items=4", {"evaluate/testbed"}),
        ("scorer.batch_tokens=512", set()),
        ("engine.workers=2", set()),
        ("engine.shard_rows=7", set()),
        ("trainer.device_batch=2", set()),
        ("student.threads=2", set()),
        ("evaluator.testbed.batch_size=2", set()),
        ("name=another", set()),
        ("tracker=none", set()),
    ],
)
def test_chain_after_a_change_plans_only_what_depends_on_it(small_store: "Make", change: str, made: set[str]) -> None:
    stages = planned(small_store(*SMALL, change))

    assert {stage.label for stage in stages if stage.how != "hit"} == made


def test_chain_after_a_threshold_changed_runs_only_what_follows(go: Go) -> None:
    go(*SMALL)

    assert ran(go(*SMALL, "keep.rifd_max.below=0.95")) == {"assemble", "train", "evaluate/testbed"}


def test_plan_after_a_change_names_the_field_that_differs(small_store: "Make") -> None:
    stages = {stage.label: stage for stage in planned(small_store(*SMALL, "keep.ifd_max.below=0.9"))}

    assert "keep.ifd_max.below: 1.0 -> 0.9" in stages["assemble"].changed


def test_chain_original_arm_asks_no_teacher_and_loads_no_scorer(go: Go) -> None:
    run = go("experiment=demo/original", *SMALL)

    assert ran(run) == ALL - {"reflect_instruction", "reflect_response", "likelihoods", "scores"}
    training = pq.read_table(run.artifact("assemble") / "training.parquet").to_pylist()
    assert all(line["kept"] and line["version"] == "original" for line in training)


def test_chain_untuned_arm_evaluates_the_student_as_it_is(go: Go) -> None:
    run = go("experiment=demo/untuned", *(setting for setting in SMALL if not setting.startswith("trainer.")))

    assert run.status == "finished" and not (run.artifact("train") / "adapter").exists()
    assert "evaluate/testbed/accuracy/mean" in run.metrics


def test_chain_scope_chosen_asks_two_replies_a_row_and_decides_like_scope_all(go: Go) -> None:
    everything, chosen = go(*SMALL), go(*SMALL, "reflection.scope=chosen")

    rows = everything.metrics["source/rows"]
    assert everything.metrics["reflect_response/requests"] > rows
    assert chosen.metrics["reflect_response/requests"] == rows
    for label in ("select_instruction", "select_response"):
        one, other = (
            pq.read_table(run.artifact(label) / "decisions.parquet").to_pylist() for run in (everything, chosen)
        )
        assert [(line["id"], line["chosen"], line["reason"]) for line in one] == [
            (line["id"], line["chosen"], line["reason"]) for line in other
        ]
    # Batches hold other neighbours, so values may move in their last bits and no further.
    tables = [pq.read_table(run.artifact("assemble") / "training.parquet") for run in (everything, chosen)]
    for name in ("ifd", "r_ifd"):
        values = [table[name].to_pylist() for table in tables]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_jsonl_tracker_of_a_run_holds_every_stage_and_the_curve(go: Go) -> None:
    run = go(*SMALL)

    events = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert events[0]["event"] == "run" and events[-1]["event"] == "end"
    assert {event["stage"] for event in events if event["event"] == "stage"} == ALL
    assert [event["step"] for event in events if event["event"] == "curve"] == [1, 2, 3, 4]
    assert events[-1]["summary"] == run.metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Make":
    """Run the small chain once for the tests that only plan."""
    from hydra import compose, initialize_config_dir

    from srecycle.compose import build, config_folder
    from srecycle.runner import run

    store = tmp_path_factory.mktemp("finished")

    def made(*overrides: str) -> object:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            return build(compose("config", [f"store={store}", *overrides]))[1]

    run(made(*SMALL), {}, [])
    return made


@pytest.fixture
def small_store(finished: "Make") -> "Make":
    """Return the builder over the store in which the small chain is finished."""
    return finished
