"""Reading finished runs back from the store, and laying their figures out as a comparison."""

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.errors import UserError
from srecycle.store import RUN

USD = "cost/usd"
"""The metric that says what the teacher's replies that a run rests on cost, whoever paid for them."""

_STDERR = "_stderr"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what was chosen, which stages stood, and every metric, named `stage/metric`.

    `reason` says why a run that did not finish stopped.
    """

    folder: Path
    id: str
    name: str
    group: str
    status: str
    seconds: float
    overrides: Sequence[str]
    choices: Mapping[str, str]
    config: Mapping[str, Any]
    stages: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    reason: str = ""

    @property
    def store(self) -> Path:
        """The root of the store that the run belongs to."""
        return self.folder.parent.parent

    def artifact(self, label: str) -> Path | None:
        """Return the directory of one of the run's stages, or None where the run didn't come so far."""
        for stage in self.stages:
            if stage["label"] == label:
                return self.store / "artifacts" / str(stage["stage"]) / str(stage["key"])
        return None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured value with its standard error, where it has one."""

    value: float
    stderr: float | None = None


def read_run(folder: Path) -> Run:
    """Read a run's folder. Raises UserError where it holds no readable run."""
    names = ("id", "name", "group", "status", "seconds", "overrides", "choices", "config", "stages", "metrics")
    try:
        content = json.loads((folder / RUN).read_text())
        reason = str(content["reason"]) if "reason" in content else ""  # in a store of an older version
        return Run(folder=folder, reason=reason, **{name: content[name] for name in names})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no readable {RUN}: it is no run of srecycle, or was killed early") from error


def read_runs(store: Path, group: str | None = None) -> list[Run]:
    """Read all runs of a store (of a group, where given), oldest first. Folders without a `run.json` are left out."""
    folders = sorted(path.parent for path in (store / "runs").glob(f"*/{RUN}"))
    runs = [read_run(folder) for folder in folders]
    return [run for run in runs if group is None or run.group == group]


def untold(store: Path) -> list[str]:
    """Return the ids of runs that left no `run.json`: they still go on, or were killed."""
    return sorted(folder.name for folder in (store / "runs").glob("*/") if not (folder / RUN).is_file())


def evaluations(run: Run) -> dict[str, Figure]:
    """Return the run's evaluation figures by name (`evaluator/task/metric`), standard errors joined to their values."""
    prefix = "evaluate/"
    found = {name.removeprefix(prefix): value for name, value in run.metrics.items() if name.startswith(prefix)}
    return {
        name: Figure(value=float(value), stderr=_stderr(found, name))
        for name, value in found.items()
        if isinstance(value, int | float) and _STDERR not in name
    }


def _stderr(found: Mapping[str, Any], name: str) -> float | None:
    """Find a metric's standard error: METRIC_stderr, before a filter's name or a split's."""
    head, _, tail = name.rpartition("/")
    metric, comma, kind = tail.partition(",")
    for candidate in (f"{head}/{metric}{_STDERR}{comma}{kind}", f"{head}{_STDERR}/{tail}"):
        if candidate in found:
            return float(found[candidate])
    return None


def teacher_requests(run: Run) -> int:
    """Return how many requests to the teacher the run rests on; runs that share replies count the same ones."""
    return sum(int(value) for name, value in run.metrics.items() if name.endswith("/requests"))


def labels(runs: Iterable[Run]) -> dict[str, str]:
    """Return a label for each run id, no two alike: its name, with what sets it apart where several share that name.

    Where all have the same name it says nothing, and is left out.
    """
    alike: dict[str, list[Run]] = {}
    for run in (runs := list(runs)):
        alike.setdefault(run.name, []).append(run)
    told = {identifier: words for several in alike.values() for identifier, words in _told_apart(several).items()}
    named, seen = dict[str, str](), Counter[str]()
    for run in runs:
        words = ", ".join(told[run.id])
        label = run.name if not words else words if len(alike) == 1 else f"{run.name} ({words})"
        seen[label] += 1  # repeated runs: nothing sets them apart but their number
        named[run.id] = label if seen[label] == 1 else f"{label} #{seen[label]}"
    return named


_UNTOLD = ("experiment=", "name=", "tracker", "student.device=", "student.threads=", "engine")
"""Overrides that don't tell what was run."""


def _told_apart(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return the overrides by which runs of one name differ, as short as they stay clear; what was chosen by its name.

    Nothing for a run that is alone.
    """
    common = set.intersection(*(set(run.overrides) for run in runs))
    own = {run.id: [one for one in run.overrides if one not in common and not one.startswith(_UNTOLD)] for run in runs}
    short = _shortest({_key(one) for several in own.values() for one in several})
    told = {}
    for run in runs:
        pairs = [(_key(one), brief(one).partition("=")[2]) for one in own[run.id]]
        told[run.id] = [value if run.choices.get(key) == value else f"{short[key]}={value}" for key, value in pairs]
    return told


def _key(override: str) -> str:
    return override.partition("=")[0].rpartition("@")[2].lstrip("+~")


def _shortest(keys: Iterable[str]) -> dict[str, str]:
    """Return the shortest ending of every key that no other key has: two parts at least, where it has two."""
    parts = {key: key.split(".") for key in keys}
    short = {}
    for key, own in parts.items():
        others = [other for other in parts.values() if other is not own]
        free = (size for size in range(2, len(own)) if all(other[-size:] != own[-size:] for other in others))
        short[key] = ".".join(own[-next(free, len(own)) :])
    return short


def brief(override: str) -> str:
    """Shorten the value of an override that is a path to its last part."""
    key, _, value = override.partition("=")
    return f"{key}={Path(value).name}" if "/" in value else override


def similar(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the known name that was likely meant, or nothing."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
