"""How a run is called and described for people who group, filter and compare runs. Pure."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srecycle.config import Canonical, flattened
from srecycle.tracker.events import Event

THRESHOLDS = ("keep", "selector")
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

    Choices, thresholds, seeds and stage keys stand flat, and the whole tree under `cfg`: a sweep locks the keys that it
    sets (`teacher`, `keep.ifd_max.below`, ...), and what is logged under such a key is ignored.
    """
    config = event["config"]
    return {
        **{f"choice/{name}": value for name, value in event["choices"].items()},
        **{f"threshold/{name}": value for name, value in thresholds(config).items()},
        **{f"seed/{name}": value for name, value in _seeds(config)},
        **{f"key/{name}": key for name, key in event["keys"].items()},
        "arm": event["name"],
        "overrides": list(event.get("overrides", ())),
        "cfg": config,
    }


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


def command(overrides: Sequence[str]) -> str:
    """Return the command line that a run was made by."""
    return shlex.join(["srecycle", *overrides])


def lineage(events: Sequence[Event]) -> dict[str, Any]:
    """Return what was made from what, by stage: key, inputs' keys, and the files with their digests."""
    return {event["stage"]: _made(event) for event in events if event["event"] == "stage"}


def _made(event: Mapping[str, Any]) -> dict[str, Any]:
    return {"key": event["key"], "how": event["how"], **event.get("artifact", {})}
