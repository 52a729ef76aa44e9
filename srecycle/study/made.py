"""Settings that are run as far as their training sets: what studies compare that need replies and likelihoods."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import hydra
import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.runs import Run, read_run
from srecycle.runner import run
from srecycle.study.sweep import Setting, composing

UNTIL = "assemble"


@dataclass(frozen=True, kw_only=True)
class Done:
    """A setting with its run, which came as far as its training set."""

    setting: Setting
    run: Run

    def table(self, label: str, name: str) -> pa.Table:
        """Return a table of one of the run's stages. Raises UserError where the run has no such stage."""
        folder = self.run.artifact(label)
        if folder is None:
            raise UserError(f"{self.run.name} has no {label}: with these selectors and filters nothing is scored")
        return pq.read_table(folder / f"{name}.parquet")

    def provenance(self, label: str) -> Mapping[str, Any]:
        """Return what a stage wrote of how it was made."""
        folder = self.run.artifact(label)
        assert folder is not None
        return dict(json.loads((folder / "provenance.json").read_text()))


def made(settings: Sequence[Setting], group: str) -> tuple[list[Done], dict[str, UserError]]:
    """Run every setting, each as a run of this group; what the store has is not made again.

    A setting that fails doesn't stop the others: it stands beside those that are made, with why. Raises UserError where
    none is made.
    """
    done, failed = list[Done](), dict[str, UserError]()
    for place, setting in enumerate(settings, start=1):
        label = ", ".join(f"{name}={value}" for name, value in setting.values.items()) or setting.experiment.name
        say(f"{place}/{len(settings)} {label}")
        experiment = replace(setting.experiment, until=UNTIL, group=group, name=label)
        try:
            folder = run(experiment, _choices(setting), list(setting.overrides))
        except UserError as error:
            say(f"  failed: {error}")
            failed[label] = error
            continue
        done.append(Done(setting=setting, run=read_run(folder)))
    if not done:
        require_all(failed, settings)
    return done, failed


def require_all(failed: Mapping[str, UserError], settings: Sequence[Setting]) -> None:
    """Raise UserError where a setting failed: what the others tell has been told by then."""
    if failed:
        label, first = next(iter(failed.items()))
        raise UserError(f"{len(failed)} of {len(settings)} settings failed, the others are made; {label}: {first}")


def _choices(setting: Setting) -> dict[str, str]:
    """Return which option of each group was chosen, by which runs are grouped and filtered."""
    with composing():
        config = hydra.compose("config", overrides=list(setting.overrides), return_hydra_config=True)
        chosen = config.hydra.runtime.choices
    return {name: str(choice) for name, choice in chosen.items() if not name.startswith("hydra/")}
