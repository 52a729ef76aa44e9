"""Benchmarks by EleutherAI's lm-evaluation-harness, through its own API.

Identity: the tasks and the content of their definitions, their data (files by content, the hub's data sets by
commit), the settings, and the harness's version. Out: `results.json` (figures, and what they were measured with:
versions, shots, metrics, what began each prompt, data, the harness's version) and `samples.jsonl` (every item's prompt
and answers).

Tasks are run one by one, and kept as they end (`lm_eval_run`). A task that can't be run stops the evaluation in the
end, after the others: a result that lacks one of its figures is never recorded.
"""

import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from srecycle.config import InputPath, component, runtime
from srecycle.errors import UserError
from srecycle.evaluator import lm_eval_data as data_sets
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.lm_eval_model import AddBos
from srecycle.evaluator.lm_eval_results import averaged, gap, table
from srecycle.evaluator.lm_eval_run import run_tasks, runnable, write_results
from srecycle.evaluator.lm_eval_tasks import Catalogue, digest
from srecycle.evaluator.lm_eval_unit import Settings, Unit
from srecycle.progress import say
from srecycle.stage import Metrics, Work

Side = Literal["in_domain", "out_of_distribution"]
Shots = Annotated[int, Field(ge=0)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


@component
class LMEval(Evaluator):
    """Runs lm-eval tasks, groups or tags.

    `include_path` is a folder of local task YAMLs, `data` gives folders that stand in for data sets, by task or group.
    `num_fewshot` is one number or one a task or group; a task that sets none and isn't named gets what its YAML says.
    `metrics` chooses the metric of each task that counts: with two or more, their plain mean is reported (`average`).
    `by` reports a task by the values of fields of its data (`meta.source` for one inside another), `gap` the means over
    two sets of tasks, or of `TASK/FIELD=VALUE`, and their difference.
    `limit` is the number of items a task (for trials: figures from a limited run are no benchmark results).
    `add_bos` says what begins each prompt: auto what training began with, true BOS, false nothing.
    """

    revision: ClassVar[int] = 2

    tasks: Names
    include_path: InputPath | None = None
    data: dict[str, InputPath] = Field(default_factory=dict)
    num_fewshot: Shots | dict[str, Shots] | None = None
    metrics: dict[str, str] = Field(default_factory=dict)
    by: dict[str, str | Names] = Field(default_factory=dict)
    gap: Annotated[dict[Side, Names], Field(max_length=2)] = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1)] | None = None
    apply_chat_template: bool = False
    add_bos: AddBos = "auto"
    seed: int = 1234
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = runtime("auto")

    def resolved(self) -> Mapping[str, Any]:
        """Tasks and data stand as their content, data sets of the hub as their commit; the harness's version counts.

        Raises UserError where a name is unknown or a file is missing.
        """
        self._require_known_names()
        definitions = {name: digest(self._catalogue.closure(name)) for name in self.tasks}
        pinned = {one.task.name: one.identity for one in self._sources}
        return {
            "include_path": self.include_path and data_sets.content_digest(self.include_path),
            "data": {task: content for task, content in pinned.items() if content},
            "definitions": definitions,
            "lm_eval": importlib.metadata.version("lm_eval"),
        }

    def check(self) -> None:
        """Raise UserError where a task is unknown, wants code or packages that it can't have, or has no data."""
        self._require_known_names()
        for one in self._sources:
            data_sets.require_safe(one)
        data_sets.require_packages(self._sources)
        data_sets.require_reachable(self._sources)

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Run the tasks on the subject. Raises UserError where some fail, when the others are done."""
        settings = Settings(limit=self.limit, apply_chat_template=self.apply_chat_template, seed=self.seed)
        found = run_tasks(
            subject.load,
            work,
            catalogue=self._catalogue,
            tasks=self.tasks,
            batch_size=self.batch_size,
            add_bos=self.add_bos,
            settings=settings,
            sources=self._sources,
            units=self._units,
        )
        if unpinned := [one.task.name for one in self._sources if not one.identity]:
            work.notes["warnings"] = [f"nothing pins the data of {', '.join(unpinned)}: it may change under its name"]
        metrics: Metrics = dict(found.metrics)
        if self.gap:
            metrics |= gap(found.metrics, self.gap, self.metrics)
        if len(self.metrics) > 1:
            metrics |= averaged(found.metrics, self.metrics)
        scores = table(found, self.metrics)
        write_results(work, found, settings, scores=scores)
        if scores:
            told = [f"{one['task']} {100 * one['value']:.2f}" for one in scores]
            told += [f"average {100 * metrics['average']:.2f}"] if "average" in metrics else []
            say(f"  lm-eval {importlib.metadata.version('lm_eval')}: {', '.join(told)}")
        return metrics

    @cached_property
    def _catalogue(self) -> Catalogue:
        if self.include_path is not None and not self.include_path.is_dir():
            raise UserError(f"evaluator include_path={self.include_path} is not a folder of lm-eval task YAMLs")
        return Catalogue(self.include_path)

    @cached_property
    def _sources(self) -> list[data_sets.Source]:
        tasks = {one.name: one for name in self.tasks for one in self._catalogue.tasks(name)}
        return [data_sets.source(task, self._for(self.data, name)) for name, task in tasks.items()]

    @cached_property
    def _units(self) -> list[Unit]:
        shots = self.num_fewshot if isinstance(self.num_fewshot, dict) else {}
        everywhere = None if isinstance(self.num_fewshot, dict) else self.num_fewshot
        commits = {one.task.name: one.commit for one in self._sources}
        return [
            Unit(
                name=one.name,
                shots=self._for(shots, one.name, everywhere),
                columns=_listed(self._for(self.by, one.name, ())),
                commit=commits.get(one.name),
            )
            for one in runnable(self._catalogue, self.tasks)
        ]

    def _for(self, chosen: Mapping[str, Any], task: str, otherwise: Any = None) -> Any:
        """Return what is chosen for a task, by its own name before that of a group which it is in."""
        if task in chosen:
            return chosen[task]
        groups = (name for name in chosen if task in {one.name for one in self._catalogue.closure(name)})
        return next((chosen[name] for name in groups), otherwise)

    def _require_known_names(self) -> None:
        """Raise UserError where a setting names what isn't evaluated, or measured: it would be without effect."""
        known = {one.name for name in self.tasks for one in self._catalogue.closure(name)}
        shots = self.num_fewshot if isinstance(self.num_fewshot, dict) else {}
        entries = [entry.partition("/")[0] for side in self.gap.values() for entry in side]
        named: dict[str, Iterable[str]] = {"data": self.data, "num_fewshot": shots, "by": self.by, "gap": entries}
        for setting, names in (named | {"metrics": self.metrics}).items():
            if unknown := [name for name in names if name not in known]:
                hint = _similar(unknown[0], known)
                raise UserError(f"evaluator {setting}: {unknown[0]} is none of the tasks evaluated{hint}")
        run = {one.name for one in runnable(self._catalogue, self.tasks)}
        for task in (*shots, *self.by):
            if not run & {one.name for one in self._catalogue.closure(task)}:
                raise UserError(
                    f"evaluator: {task} is set in a group that is run as a whole: set that, or ask for {task}"
                )
        for task, number in shots.items():
            if number and self._catalogue.find(task).content.get("num_fewshot") == 0:
                raise UserError(f"evaluator num_fewshot: the task {task} takes no examples, its YAML says: leave it 0")
        for task in {**self.metrics, **dict.fromkeys(entries)}:
            self._require_metric(task, self.metrics.get(task))
        if len(self.gap) == 1 or set(self.gap.get("in_domain", ())) & set(self.gap.get("out_of_distribution", ())):
            raise UserError("evaluator gap needs both in_domain and out_of_distribution, and no task in both")

    def _require_metric(self, task: str, metric: str | None) -> None:
        """Refuse a metric that a task's YAML doesn't tell of, and a missing choice where it tells of several."""
        told = self._catalogue.find(task).metrics
        if metric is None and len(told) > 1:
            raise UserError(
                f"evaluator gap: {task} has {', '.join(told)}: choose, +evaluator.NAME.metrics.{task}=METRIC"
            )
        if metric and told and (plain := metric.partition(",")[0].removesuffix("_unweighted")) not in told:
            raise UserError(
                f"evaluator metrics: {task} has no {metric}{_similar(plain, told)}; it has {', '.join(told)}"
            )


def _similar(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
