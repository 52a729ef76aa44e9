"""A store in a notebook: runs, their tables and the report's figures.

    from srecycle.report.frames import open_store

    store = open_store()                       # $SRECYCLE_STORE, or a path
    runs = store.runs("thresholds")            # of a group (a sweep), or all
    frame = runs.frame()                       # a line a run: settings that differ, and every metric
    runs["selective"].decisions()              # a run by its name or id, and one of its tables
    runs.figures()["surface"]                  # shown as a picture; as text it is SVG that stands alone

Everything is read when it is asked for and nothing is written. Tables are pandas' data frames.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srecycle.config import flattened
from srecycle.errors import UserError
from srecycle.report.cells import Grid
from srecycle.report.comparison import differences, entries
from srecycle.report.drawing import svg
from srecycle.report.items import items
from srecycle.report.runs import Run, read_runs, similar
from srecycle.report.sections import sections
from srecycle.report.tables import SCORING, table
from srecycle.rows import PHASES

if TYPE_CHECKING:
    import pandas as pd


def open_store(path: Path | str | None = None) -> "RunStore":
    """Open a store, by default $SRECYCLE_STORE or ./srecycle_store. Raises UserError where there is none."""
    root = Path(path or os.environ.get("SRECYCLE_STORE") or "./srecycle_store").expanduser()
    if not (root / "runs").is_dir():
        raise UserError(f"{root} is no store of srecycle: give its path or set SRECYCLE_STORE")
    return RunStore(root=root)


@dataclass(frozen=True, kw_only=True)
class RunStore:
    """A store's runs."""

    root: Path

    def runs(self, group: str | None = None) -> "Runs":
        """Return all runs, or those of a group. Raises UserError for an unknown one."""
        every = read_runs(self.root)
        if group is not None and group not in self.groups():
            raise UserError(f"{self.root} has no run of group {group}{similar(group, self.groups())}")
        return Runs(runs=[run for run in every if group is None or run.group == group])

    def groups(self) -> list[str]:
        """Return the groups: sweeps, and what `group=` named."""
        return sorted({run.group for run in read_runs(self.root)} - {""})


@dataclass(frozen=True, kw_only=True, repr=False)
class Runs:
    """Some runs, oldest first."""

    runs: Sequence[Run]

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.runs)

    def __iter__(self) -> Iterator["RunTables"]:
        """Yield the runs."""
        return (RunTables(run=run) for run in self.runs)

    def __getitem__(self, name: str | int) -> "RunTables":
        """Return a run by its place, its id, its label or its name (the newest of that name).

        Raises UserError for no such run, IndexError for no such place.
        """
        if isinstance(name, int):
            return RunTables(run=self.runs[name])
        known = {run.name: run for run in self.runs} | {entry.label: entry.run for entry in self._entries}
        known |= {run.id: run for run in self.runs}
        if name not in known:
            raise UserError(f"there is no run {name}{similar(name, known)}")
        return RunTables(run=known[name])

    def __repr__(self) -> str:
        """Return a line a run: its id, its status and its label."""
        return "\n".join(f"{one.run.id}  {one.run.status:11}  {one.label}" for one in self._entries) or "no runs"

    def frame(self, *, settings: bool = False) -> "pd.DataFrame":
        """Return a line a run: label, group, status, seconds, what sets them apart, and every metric.

        What was chosen differently stands under `choice.GROUP`, settings that the report shows as differing under
        `cfg.FIELD`; with `settings` all of them do. What a run lacks is missing.
        """
        import pandas as pd

        flat = [flattened(dict(run.config)) for run in self.runs]
        every = sorted({name for one in flat for name in one})
        shown = every if settings else [one.field for one in differences(self.runs)] if flat else []
        chosen = sorted({name for run in self.runs for name in run.choices})
        differing = [name for name in chosen if len({run.choices.get(name) for run in self.runs}) > 1]
        lines = [
            {
                **{"id": entry.run.id, "run": entry.label, "group": entry.run.group, "status": entry.run.status},
                "seconds": entry.run.seconds,
                **{f"choice.{name.rpartition('@')[2]}": entry.run.choices.get(name) for name in differing},
                **{f"cfg.{name}": one.get(name) for name in shown},
                **entry.run.metrics,
            }
            for entry, one in zip(self._entries, flat, strict=True)
        ]
        return pd.DataFrame(lines).set_index("id") if lines else pd.DataFrame()

    def figures(self) -> dict[str, "Figure"]:
        """Return the report's figures, by name: what these runs do not span is left out."""
        return {chart.name: Figure(svg(chart)) for section in sections(self._entries) for chart in section.charts}

    def comparisons(self, *, paper: bool = False) -> dict[str, "pd.DataFrame"]:
        """Return the report's tables by name: paired differences between the runs, and with `paper` the paper's.

        An interval has a column for each end; what is no number in a column of numbers is missing.
        """
        return {grid.name: _framed(grid) for section in sections(self._entries, paper=paper) for grid in section.grids}

    def html(self, path: Path | str, *, paper: bool = False) -> Path:
        """Write their report, and return its path."""
        from srecycle.report.html import write_report

        return write_report(self.runs, Path(path), paper=paper)

    @cached_property
    def _entries(self) -> Any:
        return entries(self.runs)


def _framed(grid: Grid) -> "pd.DataFrame":
    import pandas as pd

    columns: dict[str, list[str | float | None]] = {}
    for head, cells in zip(grid.heads, zip(*grid.rows, strict=True), strict=True):
        if any(cell.ends for cell in cells):
            for place, end in enumerate(("low", "high")):
                columns[f"{head} {end}"] = [cell.ends[place] if cell.ends else None for cell in cells]
        elif any(cell.value is not None for cell in cells):
            columns[head] = [cell.value for cell in cells]
        else:
            columns[head] = [cell.text for cell in cells]
    return pd.DataFrame(columns)


class Figure(str):
    """A figure's SVG text, which a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


@dataclass(frozen=True, kw_only=True, repr=False)
class RunTables:
    """A run and its tables. Those of a stage that it doesn't have are empty."""

    run: Run

    def __repr__(self) -> str:
        """Return its id and its status, and which stages stand."""
        return f"{self.run.id}  {self.run.status}: {', '.join(str(stage['label']) for stage in self.run.stages)}"

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Every metric, named `stage/metric`."""
        return self.run.metrics

    def rows(self) -> "pd.DataFrame":
        """Return the source's rows."""
        return self._frame([("source", "rows")])

    def candidates(self) -> "pd.DataFrame":
        """Return what the teacher made: texts, critique, raw reply and status, by id and version."""
        return self._frame([(f"reflect_{phase}", "candidates") for phase in PHASES], named="phase")

    def scores(self) -> "pd.DataFrame":
        """Return every version's scores by id and version; where the run has none, its likelihoods."""
        found = self._frame([("scores", "scores")])
        return found if len(found) else self.likelihoods()

    def likelihoods(self) -> "pd.DataFrame":
        """Return every version's likelihoods (nats per token), with those of tokens where they were kept."""
        return self._frame([(label, "likelihoods") for label in SCORING])

    def decisions(self) -> "pd.DataFrame":
        """Return what the selectors decided, a line a row and phase."""
        return self._frame([(f"select_{phase}", "decisions") for phase in PHASES], named="phase")

    def training(self) -> "pd.DataFrame":
        """Return every row with the version taken, whether it is trained on, and why not."""
        return self._frame([("assemble", "training")])

    def curve(self) -> "pd.DataFrame":
        """Return the training curve."""
        return self._frame([("train", "curve")])

    def results(self) -> "pd.DataFrame":
        """Return what evaluations found item by item: evaluator, metric, task, item, value."""
        import pandas as pd

        lines = [
            (measure.evaluator, measure.metric, task, item, value)
            for measure, tasks in items(self.run).items()
            for task, values in tasks.items()
            for item, value in values.items()
        ]
        return pd.DataFrame(lines, columns=["evaluator", "metric", "task", "item", "value"])

    def _frame(self, places: Sequence[tuple[str, str]], named: str = "") -> "pd.DataFrame":
        import pandas as pd

        found = [(label, table(self.run, label, name)) for label, name in places]
        frames = []
        for label, one in found:
            if one is not None:
                frame = one.to_pandas()
                if named:
                    frame.insert(1, named, label.rpartition("_")[2])
                frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
