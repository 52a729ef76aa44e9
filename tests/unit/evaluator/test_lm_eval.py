"""The lm-eval evaluator: what is kept and what is reported, on local data and a tiny student."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.lm_eval import LMEval
from tests.unit.evaluator.benchmarks import SUBJECTS, subject, work, write_benchmarks, write_student


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_benchmarks(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_student(tmp_path_factory.mktemp("student"))


def _samples(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "samples.jsonl").read_text().splitlines()]


def _written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "out").iterdir()}


MMLU = tuple(f"mmlu_{one}" for one in SUBJECTS)


def _group(folder: Path) -> Path:
    """Write a group of two of MMLU's tasks, of different size, weighed by it."""
    folder.mkdir()
    content = {
        "group": "two_subjects",
        "task": list(MMLU),
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
        "metadata": {"version": 3},
    }
    (folder / "two_subjects.yaml").write_text(json.dumps(content))
    return folder


def test_lm_eval_group_has_the_weighted_mean_of_the_harness_and_the_plain_one(
    data: Mapping[str, Path], student: Path, tmp_path: Path
) -> None:
    evaluator = LMEval(
        tasks=("two_subjects", "truthfulqa_mc2"),
        include_path=_group(tmp_path / "tasks"),
        data={"two_subjects": data["mmlu"], "truthfulqa_mc2": data["truthfulqa_mc2"]},
        num_fewshot={"two_subjects": 1, "truthfulqa_mc2": 0},
        metrics={"two_subjects": "acc_unweighted", "truthfulqa_mc2": "acc"},
    )

    metrics = evaluator.evaluate(subject(student), work(tmp_path))

    scores = {name: [one["acc"] for one in _samples(tmp_path) if one["task"] == name] for name in MMLU}
    means = [sum(one) / len(one) for one in scores.values()]
    assert len({len(one) for one in scores.values()}) == 2 and means[0] != means[1]
    assert metrics["two_subjects/acc"] == pytest.approx(sum(map(sum, scores.values())) / sum(map(len, scores.values())))
    assert metrics["two_subjects/acc_unweighted"] == pytest.approx(sum(means) / 2)
    errors = [metrics[f"{name}/acc_stderr"] for name in MMLU]
    assert metrics["two_subjects/acc_unweighted_stderr"] == pytest.approx(math.hypot(*errors) / 2)
    assert metrics["average"] == (metrics["two_subjects/acc_unweighted"] + metrics["truthfulqa_mc2/acc"]) / 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["harness"].startswith("lm-eval 0.")
    assert [(one["task"], one["metric"], one["shots"]) for one in results["scores"]] == [
        ("two_subjects", "acc_unweighted", 1),
        ("truthfulqa_mc2", "acc", 0),
    ]
    assert results["versions"]["two_subjects"] == "3" and results["begins"] == {"add_bos": "auto", "token": "<s>"}


@pytest.mark.slow
def test_lm_eval_group_that_sets_its_tasks_is_run_as_a_whole(
    data: Mapping[str, Path], student: Path, tmp_path: Path
) -> None:
    (tmp_path / "tasks").mkdir()
    content = {"group": "exam", "task": [{"task": "arc_challenge", "num_fewshot": 2}, "truthfulqa_mc2"]}
    (tmp_path / "tasks" / "exam.yaml").write_text(json.dumps(content))
    places = {name: data[name] for name in ("arc_challenge", "truthfulqa_mc2")}
    alone = LMEval(tasks=tuple(places), data=places, num_fewshot={"arc_challenge": 2})
    local: dict[str, Any] = {"include_path": tmp_path / "tasks", "data": places}

    whole = LMEval(tasks=("exam",), **local).evaluate(subject(student), work(tmp_path / "whole"))

    assert whole == pytest.approx(alone.evaluate(subject(student), work(tmp_path / "alone")), rel=1e-6)
    results = json.loads((tmp_path / "whole" / "out" / "results.json").read_text())
    assert results["n-shot"]["arc_challenge"] == 2
    with pytest.raises(UserError, match="arc_challenge is asked for by itself and in the group exam"):
        LMEval(tasks=("exam", "arc_challenge"), **local).check()
    with pytest.raises(UserError, match="arc_challenge is set in a group that is run as a whole"):
        LMEval(tasks=("exam",), num_fewshot={"arc_challenge": 3}, **local).check()


def test_lm_eval_failed_task_is_named_and_the_others_are_not_run_again(
    data: Mapping[str, Path], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = tmp_path / "tasks"
    local.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "Is it?", "choices": ["yes", "no"], "answer": 0}\n' * 3)
    content = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{solution}}",
    }
    (local / "own.yaml").write_text(json.dumps(content))
    places = {"hellaswag": data["hellaswag"], "truthfulqa_mc2": data["truthfulqa_mc2"]}
    evaluator = LMEval(tasks=("hellaswag", "own", "truthfulqa_mc2"), include_path=local, data=places)

    with pytest.raises(UserError, match=r"1 of 3 lm-eval tasks failed: own \(.*; the others are kept") as failed:
        evaluator.evaluate(subject(student), work(tmp_path))

    assert "\n" not in str(failed.value) and not (tmp_path / "out" / "results.json").exists()
    assert "Traceback" in (tmp_path / "scratch" / "failed" / "own.txt").read_text()
    content["doc_to_target"] = "answer"
    (local / "own.yaml").write_text(json.dumps(content))
    mended = LMEval(tasks=evaluator.tasks, include_path=local, data=places)
    asked: list[str] = []
    _watch_requests(monkeypatch, asked)
    metrics = mended.evaluate(subject(student), work(tmp_path))
    assert set(asked) == {"own"} and {name.partition("/")[0] for name in metrics} == set(evaluator.tasks)
    asked.clear()
    assert mended.evaluate(subject(student), work(tmp_path)) == metrics and asked == []
    assert mended.evaluate(subject(student), work(tmp_path / "at once")) == metrics
    assert _written(tmp_path / "at once") == _written(tmp_path)


def _watch_requests(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    """Note the tasks whose requests reach a model."""
    from lm_eval.models.huggingface import HFLM

    score = HFLM.loglikelihood

    def watched(self: Any, requests: Any, disable_tqdm: bool = False) -> Any:
        asked.extend(str(one.task_name) for one in requests)
        return score(self, requests, disable_tqdm=disable_tqdm)

    monkeypatch.setattr(HFLM, "loglikelihood", watched)


def test_lm_eval_by_a_field_and_the_gap_equal_what_the_samples_say(
    data: Mapping[str, Path], student: Path, tmp_path: Path
) -> None:
    evaluator = LMEval(
        tasks=("hellaswag",),
        data={"hellaswag": data["hellaswag"]},
        metrics={"hellaswag": "acc_norm"},
        by={"hellaswag": "split_type"},
        gap={
            "in_domain": ("hellaswag/split_type=indomain",),
            "out_of_distribution": ("hellaswag/split_type=zeroshot",),
        },
    )

    metrics = evaluator.evaluate(subject(student), work(tmp_path))

    means, errors = {}, {}
    for value in ("indomain", "zeroshot"):
        scores = [one["acc_norm"] for one in _samples(tmp_path) if one["doc"]["split_type"] == value]
        means[value] = mean = sum(scores) / len(scores)
        spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        errors[value] = spread / math.sqrt(len(scores))
        assert metrics[f"hellaswag/split_type={value}/n"] == len(scores) > 2
        assert metrics[f"hellaswag/split_type={value}/acc_norm"] == pytest.approx(mean)
        assert metrics[f"hellaswag/split_type={value}/acc_norm_stderr"] == pytest.approx(errors[value])
    assert metrics["gap/difference"] == pytest.approx(means["indomain"] - means["zeroshot"])
    assert metrics["gap/difference_stderr"] == pytest.approx(math.hypot(*errors.values()))


def test_lm_eval_by_a_field_that_is_not_there_is_told_before_anything_is_computed(
    data: Mapping[str, Path], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    _watch_requests(monkeypatch, asked)
    evaluator = LMEval(tasks=("hellaswag",), data={"hellaswag": data["hellaswag"]}, by={"hellaswag": "language"})

    with pytest.raises(UserError, match=r"the data of hellaswag has no field language; it has: ind, activity_label"):
        evaluator.evaluate(subject(student), work(tmp_path))

    assert asked == []


@pytest.mark.slow
def test_lm_eval_batch_size_changes_no_figure(data: Mapping[str, Path], student: Path, tmp_path: Path) -> None:
    found = {}
    for size in (1, 5, "auto"):
        evaluator = LMEval(
            tasks=("truthfulqa_mc2",),
            data={"truthfulqa_mc2": data["truthfulqa_mc2"]},
            limit=4,
            batch_size=size,
        )
        place = work(tmp_path / str(size))
        found[size] = evaluator.evaluate(subject(student), place), place.notes["lm_eval"]["largest_batch"]
    assert [batch for _, batch in found.values()][:2] == [1, 5] and found["auto"][1] > 5
    for metrics, _ in found.values():
        assert metrics == pytest.approx(found[1][0], rel=1e-6)


@pytest.mark.slow
def test_lm_eval_out_of_memory_halves_the_batch_and_gives_the_same_figures(
    data: Mapping[str, Path], student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward

    def small(self: Any, input_ids: Any = None, **rest: Any) -> Any:
        if len(input_ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids=input_ids, **rest)

    evaluator = LMEval(tasks=("arc_challenge",), data={"arc_challenge": data["arc_challenge"]}, batch_size=8)
    expected = evaluator.evaluate(subject(student), work(tmp_path / "roomy"))
    monkeypatch.setattr(LlamaForCausalLM, "forward", small)
    place = work(tmp_path / "small")

    assert evaluator.evaluate(subject(student), place) == pytest.approx(expected, rel=1e-6)
    assert place.notes["lm_eval"]["out_of_memory"] == 2 and place.notes["lm_eval"]["largest_batch"] == 2


def test_lm_eval_chat_template_that_the_tokenizer_lacks_is_a_line(
    data: Mapping[str, Path], student: Path, tmp_path: Path
) -> None:
    evaluator = LMEval(
        tasks=("arc_challenge",), data={"arc_challenge": data["arc_challenge"]}, apply_chat_template=True
    )
    with pytest.raises(UserError, match="the student's tokenizer has no chat template"):
        evaluator.evaluate(subject(student), work(tmp_path))


def test_lm_eval_identity_follows_content_and_not_places_or_batches(data: Mapping[str, Path], tmp_path: Path) -> None:
    def key(**settings: Any) -> str:
        return fingerprint(identity(LMEval(tasks=("arc_challenge",), **settings)))

    local = tmp_path / "tasks"
    local.mkdir()
    (local / "code.py").write_text("x = 1\n")
    (local / "mine.yaml").write_text("task: mine\ndoc_to_text: hello\n")
    copy = write_benchmarks(tmp_path / "copy")["arc_challenge"]
    plain = key(data={"arc_challenge": data["arc_challenge"]}, include_path=local)
    same = {"data": {"arc_challenge": copy}, "include_path": local}

    assert key(**same) == plain == key(**same, batch_size=3)
    assert key(**same, num_fewshot=2) != plain != key(**same, add_bos=False)
    (local / "__pycache__").mkdir()
    (local / "__pycache__" / "code.pyc").write_bytes(b"compiled")
    assert key(**same) == plain
    (local / "mine.yaml").write_text("task: mine\ndoc_to_text: hello!\n")
    assert key(**same) != plain
    before = key(**same)
    (copy / "ARC-Challenge" / "test-00000-of-00001.parquet").write_bytes(b"other")
    assert key(**same) != before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": ("arc_chalenge",)}, r"no task arc_chalenge \(did you mean arc_challenge\?\): `lm-eval ls tasks`"),
        ({"metrics": {"arc_challenge": "acc_nrm"}}, r"no acc_nrm \(did you mean acc_norm\?\); it has acc, acc_norm"),
        ({"metrics": {"arc_chalenge": "acc"}}, r"metrics: arc_chalenge is none .* \(did you mean arc_challenge\?\)"),
        ({"num_fewshot": {"arc": 5}}, "num_fewshot: arc is none of the tasks evaluated"),
        ({"tasks": ("truthfulqa_mc2",), "num_fewshot": {"truthfulqa_mc2": 5}}, "takes no examples"),
        ({"data": {"arc_challenge": "/no/such"}}, "/no/such, is not a folder"),
        ({"gap": {"in_domain": ("arc_challenge",)}}, "arc_challenge has acc, acc_norm: choose, "),
        ({"tasks": ("leaderboard_math_hard",)}, r"antlr4-python3-runtime 4\.11, and Hydra 4\.9"),
        ({"tasks": ("xnli_va",)}, r"wants to run code .* \(trust_remote_code\): give a local copy"),
        ({"tasks": ("humaneval",)}, "runs what the model writes"),
        ({}, r"data of arc_challenge can't be had: the hub is switched off.* no allenai/ai2_arc; give a local copy"),
    ],
)
def test_lm_eval_check_refuses_what_cannot_succeed_in_a_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        LMEval(**{"tasks": ("arc_challenge",), **settings}).check()
    assert "\n" not in str(refused.value)


def test_lm_eval_local_copy_without_a_needed_split_is_refused(data: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"has no split test, only dev: add test\.jsonl"):
        LMEval(tasks=("mmlu_anatomy",), data={"mmlu_anatomy": tmp_path}).check()
