"""The harness's own definitions on local data give the harness's own figures, to the last digit."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srecycle.evaluator.lm_eval import LMEval
from tests.unit.evaluator.benchmarks import SUBJECTS, subject, work, write_adapter, write_benchmarks, write_student

pytestmark = pytest.mark.slow

SHOTS = {"arc_challenge": 2, "hellaswag": 3, "mmlu_anatomy": 2, "mmlu_astronomy": 2, "truthfulqa_mc2": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_benchmarks(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, Path]:
    """The student by whether its tokenizer puts BOS first by itself; the adapter stands in its folder `adapter`."""
    folder = tmp_path_factory.mktemp("students")
    made = {adds: write_student(folder / str(adds), adds_bos=adds) for adds in (True, False)}
    for one in made.values():
        write_adapter(one / "adapter", one)
    return made


def _evaluator(data: Mapping[str, Path], **settings: Any) -> LMEval:
    mmlu = {f"mmlu_{name}": data["mmlu"] for name in SUBJECTS}
    places = {name: mmlu.get(name) or data[name] for name in settings["tasks"]}
    shots = {name: SHOTS[name] for name in settings["tasks"]}
    return LMEval(data=places, num_fewshot=shots, **settings)


def _as_yaml(folder: Path, data: Mapping[str, Path]) -> Path:
    """Write the same tasks for the harness's own command: data and shots in YAML, in one folder."""
    from lm_eval import tasks

    shipped = Path(tasks.__file__).parent
    swag, questions = data["hellaswag"], data["truthfulqa_mc2"]
    definitions = {
        "arc_challenge": ("arc/arc_challenge.yaml", _parquet(data["arc_challenge"] / "ARC-Challenge", "train", "test")),
        "hellaswag": ("hellaswag/hellaswag.yaml", _json(swag, "train", "validation")),
        "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", _json(questions, "validation")),
        **{
            f"mmlu_{one}": (f"mmlu/default/mmlu_{one}.yaml", _parquet(data["mmlu"] / one, "dev", "test"))
            for one in SUBJECTS
        },
    }
    folder.mkdir()
    for name, (file, place) in definitions.items():
        content = {
            "include": str(shipped / file),
            "task": f"own_{name}",
            "dataset_name": None,
            "num_fewshot": SHOTS[name],
            **place,
        }
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    return folder


def _parquet(folder: Path, *splits: str) -> dict[str, Any]:
    files = {split: str(folder / f"{split}-00000-of-00001.parquet") for split in splits}
    return {"dataset_path": "parquet", "dataset_kwargs": {"data_files": files}}


def _json(folder: Path, *splits: str) -> dict[str, Any]:
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}


@pytest.mark.parametrize(("adds_bos", "add_bos"), [(True, "auto"), (False, False)])
def test_lm_eval_on_the_shipped_tasks_equals_the_harness_command_to_the_digit(
    data: Mapping[str, Path], students: Mapping[bool, Path], tmp_path: Path, adds_bos: bool, add_bos: Any
) -> None:
    student = students[adds_bos]
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "1"),
        *("--model_args", f"pretrained={student},peft={student / 'adapter'},dtype=float32"),
        *("--tasks", ",".join(f"own_{name}" for name in SHOTS)),
        *("--include_path", str(_as_yaml(tmp_path / "tasks", data)), "--output_path", str(tmp_path / "theirs")),
    ]
    environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, env=environment, cwd=tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "theirs").rglob("results_*.json")
    theirs = json.loads(file.read_text())["results"]

    ours = _evaluator(data, tasks=tuple(SHOTS), batch_size=1, add_bos=add_bos)
    metrics = ours.evaluate(subject(student, student / "adapter"), work(tmp_path / "ours"))

    for name in SHOTS:
        figures = {key: value for key, value in theirs[f"own_{name}"].items() if key.endswith(",none")}
        assert figures, theirs
        assert {key.removesuffix(",none"): value for key, value in figures.items()} == {
            key.removeprefix(f"{name}/"): value for key, value in metrics.items() if key.startswith(f"{name}/")
        }


def test_lm_eval_with_an_adapter_equals_the_harness_in_process(
    data: Mapping[str, Path], students: Mapping[bool, Path], tmp_path: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    student = students[True]
    manager = TaskManager(include_defaults=False, include_path=str(_as_yaml(tmp_path / "tasks", data)))
    theirs = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(student), "peft": str(student / "adapter"), "dtype": "float32"},
        tasks=["own_arc_challenge"],
        device="cpu",
        batch_size=1,
        task_manager=manager,
    )
    ours = _evaluator(data, tasks=("arc_challenge",), batch_size=1)

    metrics = ours.evaluate(subject(student, student / "adapter"), work(tmp_path / "ours"))
    untuned = ours.evaluate(subject(student), work(tmp_path / "untuned"))

    assert metrics["arc_challenge/acc_norm"] == theirs["results"]["own_arc_challenge"]["acc_norm,none"]
    lines = (tmp_path / "ours" / "out" / "samples.jsonl").read_text().splitlines()
    said = [[list(answer[0]) for answer in json.loads(line)["resps"]] for line in lines]
    assert said == [[list(one[0]) for one in sample["resps"]] for sample in _sorted(theirs)]
    other = (tmp_path / "untuned" / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["resps"] for line in other] != [json.loads(line)["resps"] for line in lines]
    assert set(untuned) == set(metrics)


def _sorted(outcome: Any) -> list[Any]:
    return sorted(outcome["samples"]["own_arc_challenge"], key=lambda one: one["doc_id"])
