"""What is reported of finished tasks: their figures, those of their groups, by column, the gap, and the scores chosen.

A metric's name is `TASK/METRIC`, its standard error `TASK/METRIC_stderr`; a filter other than "none" stays in the name
(`exact_match,strict`). Groups also have `GROUP/METRIC_unweighted`, the plain mean over their tasks, where they weigh
them by size. Of one value of a column it is `TASK/FIELD=VALUE/METRIC`, and `.../n` items.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from types import SimpleNamespace
from typing import Any

from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_tasks import Catalogue, Definition

Figures = Mapping[str, Any]
"""As the harness names them: `METRIC,FILTER`, `METRIC_stderr,FILTER`, and facts without a comma."""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """Metrics by name, the facts that belong to them, and for each task and group which metrics it has."""

    metrics: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def reported(finished: Mapping[str, Mapping[str, Any]], names: Sequence[str], catalogue: Catalogue) -> Reported:
    """Put together what finished units found, and what their groups make of it. `names` are what was asked for."""
    figures: dict[str, Figures] = {}
    facts: dict[str, dict[str, Any]] = {}
    lost: list[str] = []
    by: dict[str, Any] = {}
    for one in finished.values():
        figures |= one["results"]
        lost += one["not_finite"]
        by |= one["by"]
        for name in ("versions", "n-shot", "n-samples", "higher_is_better", "data"):
            facts.setdefault(name, {}).update(one[name])
    for group in _groups(names, catalogue, figures):
        figures[group.name] = _aggregated(group, figures, catalogue, lost)
        facts["versions"][group.name] = _version(group)
        shots = {facts["n-shot"][one.name] for one in catalogue.tasks(group.name)}
        facts["n-shot"] |= {group.name: shots.pop()} if len(shots) == 1 else {}
    metrics = {name: value for task in sorted(figures) for name, value in _named(task, figures[task])}
    for task, columns in sorted(by.items()):
        for column, values in sorted(columns.items()):
            for value, found in sorted(values.items()):
                metrics |= dict(_named(f"{task}/{column}={value}", found)) | {f"{task}/{column}={value}/n": found["n"]}
    more = {
        "begins": next(iter(finished.values()))["begins"],
        "truncated": {name: one["truncated"] for name, one in finished.items() if one["truncated"]},
        "not_finite": sorted(lost),
    }
    return Reported(metrics=metrics, facts=facts | more)


def averaged(metrics: Mapping[str, float], chosen: Mapping[str, str]) -> dict[str, float]:
    """Return the plain mean of the chosen metric of each task, with its standard error where all have one."""
    values = [_value(metrics, task, metric) for task, metric in chosen.items()]
    mean, error = _mean([value for value, _ in values], [one for _, one in values])
    return {"average": mean} | ({"average_stderr": error} if error is not None else {})


def table(found: Reported, chosen: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return a line for each chosen metric: task, metric, shots, value (of 1) and standard error."""
    lines = []
    for task, metric in chosen.items():
        value, error = _value(found.metrics, task, metric)
        shots = found.facts["n-shot"].get(task)
        lines.append({"task": task, "metric": metric, "shots": shots, "value": value, "stderr": error})
    return lines


def gap(
    metrics: Mapping[str, float], sides: Mapping[Any, Sequence[str]], chosen: Mapping[str, str]
) -> dict[str, float]:
    """Return the means over two sets of tasks, and the first less the second: the gap out of distribution.

    An entry is a task or group, or `TASK/FIELD=VALUE`; its metric is the one chosen for it, or its only one. The
    standard errors take entries to be independent.
    """
    found: dict[str, tuple[float, float | None]] = {}
    for side, entries in sides.items():
        values = [_value(metrics, entry, _metric_of(metrics, entry, chosen)) for entry in entries]
        found[side] = _mean([value for value, _ in values], [error for _, error in values])
    (inside, inside_error), (outside, outside_error) = found["in_domain"], found["out_of_distribution"]
    figures = {"in_domain": inside, "out_of_distribution": outside, "difference": inside - outside}
    errors = {"in_domain": inside_error, "out_of_distribution": outside_error}
    if inside_error is not None and outside_error is not None:
        errors["difference"] = sqrt(inside_error**2 + outside_error**2)
    told = {f"{name}_stderr": error for name, error in errors.items() if error is not None}
    return {f"gap/{name}": value for name, value in (figures | told).items()}


def _mean(values: Sequence[float], errors: Sequence[float | None]) -> tuple[float, float | None]:
    known = [error for error in errors if error is not None]
    spread = sqrt(sum(error**2 for error in known)) / len(values) if len(known) == len(values) else None
    return sum(values) / len(values), spread


def _value(metrics: Mapping[str, float], entry: str, metric: str) -> tuple[float, float | None]:
    if f"{entry}/{metric}" not in metrics:
        known = ", ".join(sorted(_metrics_of(metrics, entry))) or "no metric"
        raise UserError(f"{entry} has no metric {metric}; it has {known}")
    name, comma, filter_ = metric.partition(",")
    error = metrics.get(f"{entry}/{name}_stderr{comma}{filter_}")
    return metrics[f"{entry}/{metric}"], error


def _metric_of(metrics: Mapping[str, float], entry: str, chosen: Mapping[str, str]) -> str:
    if metric := chosen.get(entry) or chosen.get(entry.partition("/")[0]):
        return metric
    found = sorted(_metrics_of(metrics, entry))
    if len(found) != 1:
        seen = ", ".join(found) or "no metric"
        raise UserError(f"gap: {entry} has {seen}: choose, +evaluator.NAME.metrics.{entry.partition('/')[0]}=METRIC")
    return found[0]


def _metrics_of(metrics: Mapping[str, float], entry: str) -> Iterable[str]:
    names = (name.removeprefix(f"{entry}/") for name in metrics if name.startswith(f"{entry}/"))
    return [name for name in names if "/" not in name and "_stderr" not in name and name != "n"]


def _named(task: str, figures: Figures) -> list[tuple[str, float]]:
    named = []
    for name, value in figures.items():
        metric, _, kind = name.partition(",")
        if kind and isinstance(value, int | float) and not isinstance(value, bool):
            named.append((f"{task}/{metric if kind == 'none' else f'{metric},{kind}'}", float(value)))
    return named


def _groups(names: Sequence[str], catalogue: Catalogue, figures: Mapping[str, Figures]) -> list[Definition]:
    """Return the groups below the names asked for that no unit has computed."""
    below = {one.name: one for name in names for one in catalogue.closure(name) if one.kind == "group"}
    return [one for one in below.values() if one.name not in figures]


def _version(group: Definition) -> str:
    return str((group.content.get("metadata") or {}).get("version", "N/A"))


def _aggregated(
    group: Definition, figures: Mapping[str, Figures], catalogue: Catalogue, lost: Sequence[str]
) -> dict[str, Any]:
    """Compute a group's figures as the harness does, and the unweighted ones beside. None of what a task lacks."""
    from lm_eval.api.group import Group
    from lm_eval.config.group import GroupConfig

    tasks = [one.name for one in catalogue.tasks(group.name)]

    class Stored(Group):  # type: ignore[misc]
        def get_all_tasks(self, recursive: bool = True) -> list[Any]:
            return [SimpleNamespace(task_name=name) for name in tasks]

    found: dict[str, Any] = {}
    for suffix, one in _weightings(group.content.get("aggregate_metric_list")):
        stored = Stored.from_config(GroupConfig(group=group.name, task=tasks, aggregate_metric_list=[one]))
        for name, value in stored.aggregate(figures).items():
            metric, comma, filter_ = name.partition(",")
            plain = metric.removesuffix("_stderr")
            if comma and not any(f"{task}/{plain},{filter_}" in lost for task in tasks):
                found[f"{plain}{suffix}{metric[len(plain) :]},{filter_}"] = value
    return found


def _weightings(asked: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return each aggregation asked for, and without weights where it has some."""
    listed = asked if isinstance(asked, list) else [asked] if asked else []
    weighted = [one for one in listed if one.get("weight_by_size", True)]
    return [("", dict(one)) for one in listed] + [("_unweighted", {**one, "weight_by_size": False}) for one in weighted]
