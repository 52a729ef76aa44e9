"""Benchmarks by EleutherAI's lm-evaluation-harness, through its own API.

Identity: the tasks, their settings, the harness's version, and the content of local task folders. Per-sample outputs
are kept in `samples.jsonl`, the harness's table of results in `results.json`.
"""

import importlib.metadata
import json
import math
import re
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

from pydantic import Field

from srecycle.config import InputPath, component, runtime
from srecycle.digest import file_digest, folder_digest
from srecycle.errors import UserError
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.progress import console, quiet_libraries
from srecycle.stage import Metrics, Work
from srecycle.store import write_json
from srecycle.student.model import Loaded


@component
class LMEval(Evaluator):
    """Runs lm-eval tasks or groups.

    `include_path` is a folder of local task YAMLs; tasks that it defines are found without indexing the harness's own.
    `limit` is the number of items a task (for trials: figures from a limited run are no benchmark results).
    """

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    include_path: InputPath | None = None
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    apply_chat_template: bool = False
    seed: int = 1234
    batch_size: Annotated[int, Field(ge=1)] = runtime(16)

    def resolved(self) -> Mapping[str, Any]:
        """Local tasks stand as their content; the harness's version counts."""
        if self.include_path is not None and not self.include_path.is_dir():
            raise UserError(f"evaluator include_path={self.include_path} is not a folder of lm-eval task YAMLs")
        folder = self.include_path and f"sha256:{folder_digest(self.include_path)}"
        data = {file: file_digest(Path(file)) for file in sorted(_local_data(self.include_path))}
        version = importlib.metadata.version("lm_eval")
        return {"include_path": folder, "data": sorted(data.values()), "lm_eval": version}

    def check(self) -> None:
        """Raise UserError where lm-eval knows no such task."""
        with quiet_libraries():
            _task_manager(self.tasks, self.include_path)

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Run the tasks on the subject."""
        return run_tasks(
            subject.load(),
            work,
            tasks=self.tasks,
            include_path=self.include_path,
            num_fewshot=self.num_fewshot,
            limit=self.limit,
            apply_chat_template=self.apply_chat_template,
            seed=self.seed,
            batch_size=self.batch_size,
        )


def _local_data(folder: Path | None) -> Iterator[str]:
    """Yield the files outside the folder that its tasks name as their data."""
    for task in sorted(folder.rglob("*.y*ml")) if folder else ():
        yield from (path for path in _PATH.findall(task.read_text(encoding="utf-8")) if Path(path).is_file())


_PATH = re.compile(r"(?<![\w/.])/[^\s\"',\[\]{}]+")


def run_tasks(
    loaded: Loaded,
    work: Work,
    *,
    tasks: tuple[str, ...],
    include_path: Path | None,
    batch_size: int,
    seed: int = 1234,
    num_fewshot: int | None = None,
    limit: int | None = None,
    apply_chat_template: bool = False,
) -> Metrics:
    """Run lm-eval tasks on a loaded model, keep what it printed and answered, and return its metrics.

    Raises UserError where a task is unknown or its data can't be had.
    """
    from lm_eval import simple_evaluate

    # The harness asks git for the commit of the folder that it is run in: noise on the screen, and no fact about it.
    with quiet_libraries(), mock.patch("lm_eval.evaluator.get_git_commit_hash", return_value=None):
        manager = _task_manager(tasks, include_path)
        model = _harness_model(loaded, batch_size)
        try:
            outcome = simple_evaluate(
                model=model,
                tasks=list(tasks),
                num_fewshot=num_fewshot,
                limit=limit,
                task_manager=manager,
                apply_chat_template=apply_chat_template,
                log_samples=True,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
        except ConnectionError as error:
            raise UserError(f"the data of {', '.join(tasks)} can't be fetched: {error}") from error
    return _kept(outcome, work)


def _task_manager(tasks: tuple[str, ...], include_path: Path | None) -> Any:
    """Return the harness's index of tasks: of the local folder alone where that has all that is asked for."""
    from lm_eval.tasks import TaskManager

    local = [str(include_path)] if include_path else None
    manager = TaskManager(include_path=local, include_defaults=False) if local else None
    if manager is None or not all(task in manager.all_tasks for task in tasks):
        manager = TaskManager(include_path=local)
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise UserError(f"lm-eval knows no task {', '.join(unknown)}: `lm-eval ls tasks` lists them")
    return manager


def _harness_model(loaded: Loaded, batch_size: int) -> Any:
    """Wrap a loaded model for the harness, which draws its progress bars on terminals only."""
    from lm_eval.models.huggingface import HFLM

    quiet = not console.is_terminal

    class Model(HFLM):  # type: ignore[misc]
        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().generate_until(requests, disable_tqdm=disable_tqdm or quiet)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=disable_tqdm or quiet)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or quiet)

    return Model(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=batch_size,
        max_length=loaded.max_length,
        device=str(loaded.device),
    )


def _kept(outcome: dict[str, Any], work: Work) -> Metrics:
    """Write results and samples, without what differs between equal runs, and return the metrics."""
    results = {task: _numbers(values) for task, values in sorted(outcome["results"].items())}
    described = {name: outcome.get(name, {}) for name in ("versions", "n-shot", "n-samples", "higher_is_better")}
    write_json(work.folder / "results.json", json.loads(json.dumps({"results": results, **described}, default=str)))
    with (work.folder / "samples.jsonl").open("w", encoding="utf-8") as stream:
        for task, samples in sorted(outcome.get("samples", {}).items()):
            for sample in sorted(samples, key=lambda one: int(one["doc_id"])):
                stream.write(json.dumps({"task": task, **sample}, default=str, sort_keys=True) + "\n")
    return {f"{task}/{name}": value for task, values in results.items() for name, value in values.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep a task's figures, named METRIC or METRIC_stderr; a filter other than "none" stays in the name.

    The harness writes "N/A" where it has no standard error, and NaN where a metric failed: neither is a figure.
    """
    numbers = {}
    for name, value in values.items():
        metric, _, kind = name.partition(",")
        if kind and isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            numbers[metric if kind == "none" else f"{metric},{kind}"] = float(value)
    return numbers
