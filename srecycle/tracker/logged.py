"""Which names runs have logged, read from their `metrics.jsonl`: what a dashboard can be drawn from.

The names are those under which W&B has them, since W&B is filled from the same events.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.tracker.events import Event, Told, read_run
from srecycle.tracker.labels import flat_config, is_figure, results

Value = bool | int | float | str | None


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Names in the order in which they first came.

    `config` are flat settings with the values that they took, `summary` numbers (one a run), `figures` those of them
    that an evaluation measured, `curves` numbers with a step axis of their own, `tables` tables.
    """

    runs: int
    config: Mapping[str, tuple[Value, ...]]
    summary: tuple[str, ...]
    figures: tuple[str, ...]
    curves: tuple[str, ...]
    tables: tuple[str, ...]

    def swept(self, prefix: str) -> list[str]:
        """Return the settings under a prefix that took several values."""
        return [name for name, values in self.config.items() if name.startswith(prefix) and len(values) > 1]


def logged(folders: Iterable[Path], group: str | None = None) -> Logged:
    """Read the runs of these folders (those of a group, where given). Killed runs count with what they logged."""
    told = [one for folder in folders if (one := read_run(folder))]
    chosen = [one for one in told if group is None or one.begin["group"] == group]
    config: dict[str, dict[Value, None]] = {}
    for one in chosen:
        for name, value in flat_config(one.begin).items():
            if isinstance(value, Value):
                config.setdefault(name, {})[value] = None
    events = [event for one in chosen for event in one.events]
    metrics = [item for event in events for item in _metrics(event)]
    others = [item for event in events for item in _others(event)]
    return Logged(
        runs=len(chosen),
        config={name: tuple(values) for name, values in config.items()},
        summary=tuple(dict.fromkeys(name for name, value in [*metrics, *others] if _is_number(value))),
        figures=tuple(dict.fromkeys(name for name, value in metrics if is_figure(name, value))),
        curves=tuple(dict.fromkeys(name for one in chosen for name in _curves(one))),
        tables=tuple(dict.fromkeys(name for one in chosen for name in _tables(one))),
    )


def _metrics(event: Event) -> list[tuple[str, Any]]:
    """Return what a stage recorded, or the run summed up."""
    if event["event"] == "stage":
        return [(f"{event['stage']}/{name}", value) for name, value in event["metrics"].items()]
    return list(event["summary"].items()) if event["event"] == "end" else []


def _others(event: Event) -> list[tuple[str, Any]]:
    """Return what else is told of a stage: what making it took, how scores are distributed."""
    if event["event"] != "stage":
        return []
    return [*event.get("figures", {}).items(), (f"{event['stage']}/seconds", event["seconds"])]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _curves(told: Told) -> Iterator[str]:
    for event in told.events:
        if event["event"] == "curve":
            numbers = [name for name, value in event.items() if name not in ("event", "time") and _is_number(value)]
            yield from (f"{event['stage']}/{name}" for name in numbers)


def _tables(told: Told) -> Iterator[str]:
    for event in told.events:
        if event["event"] == "stage":
            yield from event.get("tables", {})
        if event["event"] == "end" and results(told.begin, event["summary"]):
            yield "results"
