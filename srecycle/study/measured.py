"""What a study reads: the versions of all rows and what the student says of them, from the store alone."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from srecycle.data import Source
from srecycle.embedder import Embeddings
from srecycle.errors import UserError
from srecycle.experiment import Experiment
from srecycle.keep import Keep
from srecycle.keep.base import EMBEDDING, ORIGINAL
from srecycle.reflection import Reflect
from srecycle.reflection.versions import Versions
from srecycle.selector import Selector
from srecycle.selector.base import COHERENCE
from srecycle.selector.grid import MEASURED, VersionGrid, version_grid
from srecycle.stage import Stage, Work
from srecycle.store import Store
from srecycle.student import Likelihoods
from srecycle.study.sweep import Setting

_EMBEDDED = {COHERENCE, EMBEDDING}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All versions with their scores, and the tables of embeddings."""

    grid: VersionGrid
    embeddings: list[pa.Table]


def measured(settings: Sequence[Setting]) -> Measured:
    """Read what these settings, of one sweep, choose from.

    Raises UserError where the store lacks it; the line names the command that makes it.
    """
    widest = max(settings, key=lambda one: (_reflects(one.experiment), bool(_needed([one]) & _EMBEDDED)))
    experiment = replace(widest.experiment, until="scores")
    stages = [stage for stage in experiment.plan().values() if isinstance(stage, _READ)]
    store = Store(experiment.store, create=False)
    if missing := [stage for stage in stages if store.find(stage.name, stage.key) is None]:
        kept = [one for one in widest.overrides if not one.startswith("until=")]
        command = replace(widest, overrides=(*kept, "until=scores")).command
        names = ", ".join(dict.fromkeys(stage.name for stage in missing))
        raise UserError(f"{store.root} has no {names} of this experiment: `srecycle {command}` makes them")
    return _read(stages, store, _needed(settings))


_READ = (Source, Reflect, Likelihoods, Embeddings)


def _read(stages: Iterable[Stage], store: Store, needed: Collection[str]) -> Measured:
    work = Work(store=store, folder=Path(os.devnull), scratch=Path(os.devnull))
    parts = list(stages)
    (rows,) = (stage for stage in parts if isinstance(stage, Source))
    reflections = [stage for stage in parts if isinstance(stage, Reflect)]
    versions = Versions(work, rows, reflections, {name.removeprefix(ORIGINAL) for name in needed}).table()
    likelihoods = [work.read(one).table("likelihoods", MEASURED) for one in parts if isinstance(one, Likelihoods)]
    embeddings = [work.read(one).table("embeddings") for one in parts if isinstance(one, Embeddings)]
    return Measured(grid=version_grid(versions, likelihoods, embeddings), embeddings=embeddings)


def _reflects(experiment: Experiment) -> bool:
    return any(selector.takes_challengers for selector in experiment.selector.values())


def _needed(settings: Iterable[Setting]) -> set[str]:
    """Return the columns that selectors and filters read."""
    parts: list[Selector | Keep] = []
    for one in settings:
        parts += [*one.experiment.selector.values(), *one.experiment.keep.values()]
    return {name for part in parts for name in part.needed}
