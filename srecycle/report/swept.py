"""What runs vary: the numbers that were swept, and how else each run differs from the others.

Pure functions from entries. Runs that differ in their seeds only count as the same setting.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from srecycle.report.comparison import Difference, Entry, differences

_SEEDS = ("seed", "revision")


@dataclass(frozen=True, kw_only=True)
class Swept:
    """A setting that is a number: its value in each run, None in a run that has no such setting."""

    field: str
    values: Sequence[float | None]

    @property
    def distinct(self) -> int:
        """How many values it takes."""
        return len({value for value in self.values if value is not None})


def swept(found: Sequence[Entry], least: int) -> list[Swept]:
    """Return the numbers that take at least so many values over these runs, sorted by name."""
    numbers = [_numbers(one) for one in _differing(found)]
    return [one for one in numbers if one is not None and one.distinct >= least]


def sides(found: Sequence[Entry], without: Collection[str]) -> list[str]:
    """Say of each run how else it differs from the others than in these fields; "" where nothing does.

    Two runs are told the same if and only if the rest of their settings is the same. The choice of a component stands
    for the settings that come with it.
    """
    fields = {one.field: one.values for one in _differing(found) if one.field not in without}
    whole = _together(fields, len(found))
    choices = {name: [entry.run.choices.get(name, "") for entry in found] for name in _choices(found)}
    meant = {name: values for name, values in choices.items() if _follows(values, whole)}
    return _told_apart({**meant, **fields}, len(found))


def _differing(found: Sequence[Entry]) -> list[Difference]:
    every = differences([entry.run for entry in found]) if found else []
    return [one for one in every if one.field.rpartition(".")[2] not in _SEEDS]


def _numbers(one: Difference) -> Swept | None:
    try:
        values = [float(text) if text else None for text in one.values]
    except ValueError:
        return None
    known = all(value is None or math.isfinite(value) for value in values)
    return Swept(field=one.field, values=values) if known else None


def _choices(found: Sequence[Entry]) -> list[str]:
    return sorted({name for entry in found for name in entry.run.choices})


def _together(columns: Mapping[str, Sequence[str]], runs: int) -> list[tuple[str, ...]]:
    return [tuple(values[place] for values in columns.values()) for place in range(runs)]


def _follows(values: Sequence[str], whole: Sequence[tuple[str, ...]]) -> bool:
    """Whether runs with the same settings have the same one of these values."""
    return len(set(zip(whole, values, strict=True))) == len(set(whole))


def _told_apart(columns: Mapping[str, Sequence[str]], runs: int) -> list[str]:
    """Name the first columns that tell runs apart, and none that adds nothing to those before it."""
    chosen: dict[str, Sequence[str]] = {}
    for name, values in columns.items():
        if len(set(_together({**chosen, name: values}, runs))) > len(set(_together(chosen, runs))):
            chosen[name] = values
    return [
        ", ".join(f"{name.rpartition('@')[2]}={values[place]}" for name, values in chosen.items() if values[place])
        for place in range(runs)
    ]
