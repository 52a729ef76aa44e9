"""One task of lm-eval, run: its figures, the facts about how they came to be, and its samples.

A unit is a task, or a group that changes its tasks' settings, so that they can't be run apart from it.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_data import used_commit
from srecycle.progress import console, quiet_libraries

_MOST_VALUES = 500


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What is run at once.

    `shots` are examples in the prompt (None: as the task says), `columns` the fields of its data to report it by, and
    `commit` is what the hub's data set is to be at, where that is known.
    """

    name: str
    shots: int | None = None
    columns: tuple[str, ...] = ()
    commit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for all units."""

    limit: int | None = None
    apply_chat_template: bool = False
    seed: int = 1234


def run_unit(unit: Unit, manager: Any, model: Any, settings: Settings) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Return a unit's facts, as plain JSON, and its samples by task."""
    from lm_eval import simple_evaluate

    with _quiet():
        loaded = manager.load([unit.name])
        tasks: dict[str, Any] = loaded["tasks"]
        for name, task in tasks.items():
            if unit.commit and (used := used_commit(task)) not in (None, unit.commit):
                raise UserError(f"the data of {name} was loaded at commit {used}, but is pinned to {unit.commit}")
        values = {name: _values(task, unit, settings.limit) for name, task in tasks.items()} if unit.columns else {}
        before = model.truncated
        outcome = simple_evaluate(
            model=model,
            tasks=[loaded.get("groups", {}).get(unit.name) or tasks[unit.name]],
            num_fewshot=unit.shots,
            limit=settings.limit,
            task_manager=manager,
            apply_chat_template=settings.apply_chat_template,
            log_samples=True,
            random_seed=settings.seed,
            numpy_random_seed=settings.seed,
            torch_random_seed=settings.seed,
            fewshot_random_seed=settings.seed,
        )
        samples = outcome["samples"]
        facts = {
            "results": {name: _figures(figures) for name, figures in outcome["results"].items()},
            **{name: outcome.get(name, {}) for name in ("versions", "n-shot", "n-samples", "higher_is_better")},
            "not_finite": _not_finite(outcome["results"]),
            "by": {
                name: {column: _by(task, samples[name], values[name][column]) for column in unit.columns}
                for name, task in tasks.items()
                if unit.columns
            },
            "data": {name: _data(task) for name, task in tasks.items()},
            "begins": model.begins,
            "truncated": model.truncated - before,
        }
    return json.loads(json.dumps(facts, default=str)), samples


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the harness tells off the screen, and its bars where there is no terminal."""
    from unittest import mock

    import datasets
    from lm_eval.api.task import tqdm

    shown = console.is_terminal
    bars = datasets.utils.are_progress_bars_disabled()
    if not shown:
        datasets.disable_progress_bars()
    # It also asks git for the commit of the folder that it is run in, which is no fact about it, and for each unit
    # again pip, drivers and compilers for their versions, which takes seconds; ours stand in the provenance.
    with (
        quiet_libraries(),
        mock.patch("lm_eval.evaluator.get_git_commit_hash", return_value=None),
        mock.patch("lm_eval.evaluator.add_env_info"),
        mock.patch("lm_eval.api.task.tqdm", tqdm if shown else partial(tqdm, disable=True)),
    ):
        try:
            yield
        finally:
            if not shown and not bars:
                datasets.enable_progress_bars()


def _data(task: Any) -> dict[str, str | None]:
    """Tell what was loaded; a local path is told by its content, in the identity."""
    commit = used_commit(task)
    return {"data_set": str(task.DATASET_PATH) if commit else None, "commit": commit}


def _not_finite(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted(
        f"{name}/{metric}"
        for name, figures in results.items()
        for metric, value in figures.items()
        if isinstance(value, float) and not math.isfinite(value)
    )


def _figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what is a figure; the harness writes "N/A" where it has no standard error, and NaN where a metric failed."""
    return {
        name: float(value) if isinstance(value, float) else value
        for name, value in figures.items()
        if not isinstance(value, float) or math.isfinite(value)
    }


def _values(task: Any, unit: Unit, limit: int | None) -> dict[str, dict[int, str]]:
    """Return the value of each column for each item, before anything is computed. Raises UserError."""
    found: dict[str, dict[int, str]] = {column: {} for column in unit.columns}
    for number, item in task.doc_iterator(limit=limit):
        for column in unit.columns:
            found[column][number] = _value(item, column, task.task_name)
    for column, values in found.items():
        if (count := len(set(values.values()))) > _MOST_VALUES:
            raise UserError(f"by: the field {column} of {task.task_name} has {count} values, too many to report apart")
    return found


def _value(item: Mapping[str, Any], column: str, task: str) -> str:
    try:
        value = reduce(lambda inside, key: inside[key], column.split("."), item)
    except (KeyError, TypeError):
        raise UserError(f"by: the data of {task} has no field {column}; it has: {', '.join(item)}") from None
    if value is not None and not isinstance(value, str | int | float | bool):
        raise UserError(f"by: the field {column} of {task} holds a {type(value).__name__}, not one value")
    return str(value)


def _by(task: Any, samples: Sequence[Mapping[str, Any]], values: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """Return for each value of a column the task's own metrics over its items: figures as the harness names them."""
    from lm_eval.api.metrics import mean, stderr_for_metric

    items: dict[str, dict[tuple[str, str], list[Any]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        for metric in sample["metrics"]:
            items[values[int(sample["doc_id"])]][metric, sample["filter"]].append(sample[metric])
    found: dict[str, dict[str, Any]] = {}
    for value in sorted(items):
        figures: dict[str, Any] = {}
        for (metric, filter_), scores in items[value].items():
            aggregate = task.aggregation().get(metric, mean)
            spread = stderr_for_metric(metric=aggregate, bootstrap_iters=1000)
            figures[f"{metric},{filter_}"] = aggregate(scores)
            if spread and len(scores) > 1:
                figures[f"{metric}_stderr,{filter_}"] = spread(scores)
            figures["n"] = len(scores)
        found[value] = _figures({name: one if name == "n" else float(one) for name, one in figures.items()})
    return found
