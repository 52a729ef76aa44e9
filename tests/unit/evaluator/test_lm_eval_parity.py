"""The harness's own definitions on local data give the harness's own figures, to the last digit."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from srecycle.evaluator.lm_eval import LMEval
from srecycle.evaluator.lm_eval_tasks import Catalogue
from tests.conftest import ROOT
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


CHAT = "{% for one in messages %}<{{ one['role'] }}> {{ one['content'] }}\n{% endfor %}<assistant>"


def _command(
    tasks: Sequence[str], include: Path, student: Path, folder: Path, *more: str
) -> Mapping[str, Mapping[str, Any]]:
    """Return the results of the harness's own command line."""
    command = [
        *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "1"),
        *("--model_args", f"pretrained={student},peft={student / 'adapter'},dtype=float32"),
        *("--tasks", ",".join(tasks), "--include_path", str(include), "--output_path", str(folder / "theirs")),
        *more,
    ]
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, env=environment, cwd=folder, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = (folder / "theirs").rglob("results_*.json")
    return dict(json.loads(file.read_text())["results"])


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the harness's figures of a task by our names."""
    return {name.removesuffix(",none"): value for name, value in figures.items() if name.endswith(",none")}


def _evaluator(data: Mapping[str, Path], **settings: Any) -> LMEval:
    mmlu = {f"mmlu_{name}": data["mmlu"] for name in SUBJECTS}
    places = {name: mmlu.get(name) or data[name] for name in settings["tasks"]}
    shots = {name: SHOTS[name] for name in settings["tasks"]}
    return LMEval(data=places, num_fewshot=shots, **settings)


def _as_yaml(folder: Path, data: Mapping[str, Path]) -> Path:
    """Write the same tasks for the harness's own command: data and shots in YAML, in one folder."""
    folder.mkdir()
    for one in _definitions(data, SUBJECTS):
        name = one["task"]
        (folder / f"{name}.yaml").write_text(json.dumps(one | {"task": f"own_{name}", "num_fewshot": SHOTS[name]}))
    return folder


def _definitions(data: Mapping[str, Path], subjects: Sequence[str]) -> list[dict[str, Any]]:
    """Return the shipped tasks with their data in local files."""
    from lm_eval import tasks

    shipped = Path(tasks.__file__).parent
    swag, questions = data["hellaswag"], data["truthfulqa_mc2"]
    definitions = {
        "arc_challenge": ("arc/arc_challenge.yaml", _parquet(data["arc_challenge"] / "ARC-Challenge", "train", "test")),
        "hellaswag": ("hellaswag/hellaswag.yaml", _json(swag, "train", "validation")),
        "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", _json(questions, "validation")),
        **{
            f"mmlu_{one}": (f"mmlu/default/mmlu_{one}.yaml", _parquet(data["mmlu"] / one, "dev", "test"))
            for one in subjects
        },
    }
    return [
        {"include": str(shipped / file), "task": name, "dataset_name": None, **place}
        for name, (file, place) in definitions.items()
    ]


def _parquet(folder: Path, *splits: str) -> dict[str, Any]:
    files = {split: str(folder / f"{split}-00000-of-00001.parquet") for split in splits}
    return {"dataset_path": "parquet", "dataset_kwargs": {"data_files": files}}


def _json(folder: Path, *splits: str) -> dict[str, Any]:
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}


@pytest.mark.parametrize(
    ("adds_bos", "add_bos", "chat"), [(True, "auto", False), (False, False, False), (True, "auto", True)]
)
def test_lm_eval_on_the_shipped_tasks_equals_the_harness_command_to_the_digit(
    data: Mapping[str, Path], students: Mapping[bool, Path], tmp_path: Path, adds_bos: bool, add_bos: Any, chat: bool
) -> None:
    student = students[adds_bos]
    if chat:
        student = tmp_path / "student"
        shutil.copytree(students[adds_bos], student)
        (student / "chat_template.jinja").write_text(CHAT)
    include, more = _as_yaml(tmp_path / "tasks", data), ["--apply_chat_template"] * chat
    theirs = _command([f"own_{name}" for name in SHOTS], include, student, tmp_path, *more)

    ours = _evaluator(data, tasks=tuple(SHOTS), batch_size=1, add_bos=add_bos, apply_chat_template=chat)
    metrics = ours.evaluate(subject(student, student / "adapter"), work(tmp_path / "ours"))

    assert ("<assistant>" in (tmp_path / "ours" / "out" / "samples.jsonl").read_text()) == chat
    for name in SHOTS:
        figures = _plain(theirs[f"own_{name}"])
        assert figures, theirs
        assert figures == {
            key.removeprefix(f"{name}/"): value for key, value in metrics.items() if key.startswith(f"{name}/")
        }


def test_open_llm_v1_equals_the_harness_command_on_its_four_benchmarks_to_the_digit(tmp_path: Path) -> None:
    preset = yaml.safe_load((ROOT / "conf/evaluator/open_llm_v1.yaml").read_text())
    shots = preset["num_fewshot"]
    subjects = [one.name.removeprefix("mmlu_") for one in Catalogue().tasks("mmlu")]
    data = write_benchmarks(tmp_path / "data", items=2, examples=25, subjects=subjects)
    student = write_student(tmp_path / "student", adds_bos=True, room=8192)
    write_adapter(student / "adapter", student)
    for one in _definitions(data, subjects):  # under their own names, so that the group `mmlu` finds them
        name = one["task"]
        one["num_fewshot"] = shots["mmlu" if name.startswith("mmlu_") else name]
        (tmp_path / "tasks").mkdir(exist_ok=True)
        (tmp_path / "tasks" / f"{name}.yaml").write_text(json.dumps(one))
    theirs = _command(preset["tasks"], tmp_path / "tasks", student, tmp_path)

    settings = {name: value for name, value in preset.items() if name != "_target_"}
    ours = LMEval(**settings | {"data": dict(data), "batch_size": 1})
    metrics = ours.evaluate(subject(student, student / "adapter"), work(tmp_path / "ours"))

    for name in preset["tasks"]:
        figures = _plain(theirs[name])
        assert figures and figures.items() <= {key: metrics[f"{name}/{key}"] for key in figures}.items(), name
    single = [theirs[f"mmlu_{one}"]["acc,none"] for one in subjects]
    assert len(single) == 57 and metrics["mmlu/acc_unweighted"] == pytest.approx(sum(single) / 57, rel=1e-12)
    assert metrics["mmlu/acc"] != metrics["mmlu/acc_unweighted"], "subjects differ in size"
    named = {"arc_challenge": "acc_norm", "hellaswag": "acc_norm", "truthfulqa_mc2": "acc"}
    total = sum(theirs[name][f"{metric},none"] for name, metric in named.items()) + sum(single) / 57
    assert metrics["average"] == pytest.approx(total / 4, rel=1e-12)


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
