"""What a tracker is: it opens a session for a run, which takes events as they happen.

Trackers change no result; every field is a runtime field.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from srecycle.config import Canonical, Component, component
from srecycle.stage import Made


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What is known of a run before it starts.

    `overrides` is the command line, `choices` are the flat configuration choices (`teacher: scripted`,
    `selector.response: reversed_ifd`, ...), `config` the canonical tree of the experiment, `keys` each stage's key.
    """

    id: str
    name: str
    group: str
    folder: Path
    choices: Mapping[str, str]
    overrides: tuple[str, ...]
    config: Canonical
    keys: Mapping[str, str]


class Session(ABC):
    """A run's open line to its tracker."""

    @abstractmethod
    def stage(self, label: str, made: Made) -> None:
        """A stage stands: its metrics, and its artifact as lineage."""

    @abstractmethod
    def curve(self, label: str, curve: pa.Table) -> None:
        """A training's curve, one line a step; the column `step` is its axis."""

    @abstractmethod
    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """The run ends: "finished" or "failed"."""


@component
class Tracker(Component, ABC):
    """Opens sessions."""

    @abstractmethod
    def open(self, run: RunInfo) -> Session:
        """Open a session for this run."""


class NullSession(Session):
    """Takes everything and keeps nothing."""

    def stage(self, label: str, made: Made) -> None:
        """Ignore it."""

    def curve(self, label: str, curve: pa.Table) -> None:
        """Ignore it."""

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Ignore it."""


@component
class NullTracker(Tracker):
    """Tracks nothing beyond what every run writes into the store."""

    def open(self, run: RunInfo) -> Session:
        """Open a session that keeps nothing."""
        return NullSession()
