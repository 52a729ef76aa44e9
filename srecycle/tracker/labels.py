"""How a run is called and described for people who group, filter and compare runs. Pure.

No name that is given to W&B has a dot: it reads one as the way into a nested value, and then finds nothing.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srecycle.config import Canonical, flattened
from srecycle.tracker.events import Event

THRESHOLDS = ("keep", "selector")
PAIRED = ("teacher", "student")
_UNTOLD = ("experiment=", "name=", "group=", "store=", "tracker", "student.device=", "student.threads=", "engine")
"""Overrides that don't tell what was run."""

_LONGEST = 120
"""W&B shows names of up to 128 characters."""


def run_name(name: str, overrides: Sequence[str]) -> str:
    """Return the experiment's name with what was set for this run, cut to a readable length."""
    told = [_brief(one) for one in overrides if not one.startswith(_UNTOLD)]
    full = f"{name} ({', '.join(told)})" if told else name
    return full if len(full) <= _LONGEST else f"{full[: _LONGEST - 1]}…"


def _brief(override: str) -> str:
    """Shorten a value that is a path to its last part, and drop what only Hydra needs to read."""
    key, _, value = override.lstrip("+").partition("=")
    return f"{key}={Path(value).name}" if "/" in value and "[" not in value else f"{key}={value}"


def flat_config(event: Event) -> dict[str, Any]:
    """Return what dashboards group and filter by, from a run's event.

    Choices, thresholds, seeds and stage keys stand flat, teacher and student as they are told apart, and the whole tree
    under `cfg`: a sweep locks the keys that it sets (`teacher`, `keep.ifd_max.below`, ...), and what is logged under
    such a key is ignored.
    """
    config = event["config"]
    return {
        **{f"choice/{_slashed(name)}": value for name, value in event["choices"].items()},
        **{f"pair/{part}": _part(event, part) for part in PAIRED},
        **{f"threshold/{_slashed(name)}": value for name, value in thresholds(config).items()},
        **{f"seed/{_slashed(name)}": value for name, value in _seeds(config)},
        **{f"key/{_slashed(name)}": key for name, key in event["keys"].items()},
        "arm": event["name"],
        "overrides": list(event.get("overrides", ())),
        "cfg": config,
    }


def _slashed(name: str) -> str:
    """Write a dotted name with slashes; of `GROUP@PLACE`, the place."""
    return name.rpartition("@")[2].replace(".", "/")


def _part(event: Event, part: str) -> str:
    """Return which teacher or student a run has: the choice, and what was set of it that decides a result."""
    tree = event["config"].get(part) or {}
    own = [one.lstrip("+").removeprefix(f"{part}.") for one in event.get("overrides", ()) if _sets(one, part)]
    decisive = [_brief(one) for one in own if one.partition("=")[0].partition(".")[0] in tree]
    return " ".join([str(event["choices"].get(part, part)), *decisive])


def _sets(override: str, part: str) -> bool:
    return override.lstrip("+").startswith(f"{part}.")


def thresholds(config: Canonical) -> dict[str, float]:
    """Return every number of the selectors and keep filters by its name on the command line."""
    assert isinstance(config, dict)
    parts = {name: config[name] for name in THRESHOLDS if name in config}
    return {
        name: value
        for name, value in flattened(parts).items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name.rpartition(".")[2] not in ("revision", "seed")
    }


def _seeds(config: Canonical) -> Iterator[tuple[str, Any]]:
    for name, value in flattened(config).items():
        part, _, last = name.rpartition(".")
        if last == "seed" and isinstance(value, int):
            yield part, value


RESULTS = ("teacher", "student", "arm", "figure", "value")


def results(begin: Event, summary: Mapping[str, Any]) -> list[list[Any]]:
    """Return the lines of a run's results: each figure of its evaluations, with who taught whom (columns `RESULTS`).

    Runs' tables can be laid one below the other, which is how teachers and students become a heat map.
    """
    who = [_part(begin, part) for part in PAIRED]
    figures = sorted(name for name, value in summary.items() if is_figure(name, value))
    return [[*who, begin["name"], name, float(summary[name])] for name in figures]


def is_figure(name: str, value: Any) -> bool:
    """Say whether a metric is what an evaluation measured: a number, and no standard error."""
    return (
        name.startswith("evaluate/")
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and "_stderr" not in name
    )


def command(overrides: Sequence[str]) -> str:
    """Return the command line that a run was made by."""
    return shlex.join(["srecycle", *overrides])
