"""Real Alpaca rows, recorded replies of a real teacher, a small English student, and a local lm-eval task."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from srecycle.report.runs import Run
from tests.e2e.conftest import ran

pytestmark = pytest.mark.e2e

QUESTIONS = (
    ("The capital of France is", ["Paris", "a banana", "seven"], 0),
    ("Water is made of hydrogen and", ["music", "oxygen", "Tuesday"], 1),
    ("The opposite of hot is", ["green", "loud", "cold"], 2),
    ("A week has", ["seven days", "two moons", "no end of shoes"], 0),
)


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """Write a multiple choice task for lm-eval, data and all."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = [json.dumps({"question": q, "choices": choices, "answer": a}) for q, choices, a in QUESTIONS]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    settings = {
        "task": "small_questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "small_questions.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_chain_on_alpaca_rows_with_recorded_replies_trains_and_evaluates(
    go: Callable[..., Run], shared: Path, task_folder: Path
) -> None:
    replies = shared / "data" / "reflections" / "replies.jsonl"
    recorded = sorted({json.loads(line)["index"] for line in replies.read_text().splitlines()})
    positions = [*recorded[:8], 0]  # position 0 has no recorded reply
    assert 0 not in recorded
    settings = (
        "data=alpaca",
        f"data.path={shared / 'data' / 'alpaca_subset_3111.json'}",
        f"data.positions={positions}",
        "teacher=replay",
        f"teacher.path={replies}",
        "student=hf",
        f"student.path={shared / 'models' / 'english_tiny'}",
        "student.threads=1",
        "template=plain",
        "keep.ifd_max.below=1.2",  # most of a large model's rewrites lie past this student: IFD > 1
        "keep.rifd_max.below=2",
        "trainer.match=steps",
        "trainer.max_steps=3",
        "trainer.batch_size=4",
        "evaluator=[lm_eval]",
        "evaluator.lm_eval.tasks=[small_questions]",
        f"evaluator.lm_eval.include_path={task_folder}",
        "tracker=jsonl",
    )

    run = go(*settings)

    assert run.status == "finished" and ran(go(*settings)) == set()
    assert run.metrics["reflect_instruction/instruction/ok"] == 8
    assert run.metrics["reflect_instruction/instruction/not_recorded"] == 1
    assert run.metrics["reflect_response/response/ok"] == run.metrics["reflect_response/both/ok"] == 8
    assert run.metrics["likelihoods/status/ok"] == 1 + 4 * 8
    likelihoods = pq.read_table(run.artifact("likelihoods") / "likelihoods.parquet")
    originals = [line for line in likelihoods.to_pylist() if line["version"] == "original"]
    helped = sum(line["loss_y_given_x"] < line["loss_y"] for line in originals)
    assert helped > 0.8 * len(originals), "original responses should be likelier after their instructions"
    decisions = pq.read_table(run.artifact("select_instruction") / "decisions.parquet").to_pylist()
    assert [line["reason"] for line in decisions if line["challenger_value"] is None] == ["challenger_not_recorded"]
    training = pq.read_table(run.artifact("assemble") / "training.parquet").to_pylist()
    assert sum(line["kept"] for line in training) == run.metrics["train/rows"] > 0
    assert 0 <= run.metrics["evaluate/lm_eval/small_questions/acc"] <= 1
    samples = (run.artifact("evaluate/lm_eval") / "samples.jsonl").read_text().splitlines()
    assert len(samples) == len(QUESTIONS)


def test_chain_on_chat_rows_keeps_history_and_odd_conversations(
    go: Callable[..., Run], shared: Path, tmp_path: Path
) -> None:
    alpaca = json.loads((shared / "data" / "alpaca_subset_3111.json").read_text())[:6]
    conversations = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        for row in alpaca
    ]
    conversations[1] = [{"role": "system", "content": "Be brief."}, *conversations[0], *conversations[1]]
    conversations[2] = conversations[2][:1]  # a question that nobody answered
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))

    run = go(
        "data=chat",
        f"data.path={file}",
        "student=hf",
        f"student.path={shared / 'models' / 'english_tiny'}",
        "student.threads=1",
        "template=plain",
        "selector@selector.instruction=never",
        "selector@selector.response=never",
        "keep=[ifd_max]",
        "keep.ifd_max.below=2",
        "trainer.match=steps",
        "trainer.max_steps=2",
        "trainer.batch_size=2",
        "tracker=none",
    )

    rows = pq.read_table(run.artifact("source") / "rows.parquet").to_pylist()
    assert [len(row["history"]) for row in rows] == [0, 3, 0, 0, 0, 0]
    training = pq.read_table(run.artifact("assemble") / "training.parquet").to_pylist()
    assert training[2]["kept"] is False and training[2]["reason"] == "ifd_empty_response"
    assert run.metrics["train/rows"] == 5
