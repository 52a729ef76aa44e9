"""What came of a study: its cells beside the runs that the store has, and what tables and figures are made of.

In: a plan and a store. Out: lines, one a cell and round, with metrics by their names; matrices of right and wrong
items; shares of texts with a phrase; tables of scores. A cell without a finished run has a reason, and no figure.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from srecycle.config import flattened
from srecycle.evaluator.testbed import OUT_OF_DISTRIBUTION
from srecycle.report.items import Measure, items
from srecycle.report.runs import Run, read_run
from srecycle.report.tables import table
from srecycle.rows import own_rows
from srecycle.study.contrasts import Answered
from srecycle.study.jobs import Place, Result
from srecycle.study.plan import Cell, Plan

ACCURACY = Measure(evaluator="testbed", metric="exact_match,final_answer")
_TASK = "micro_world_"
_SEED, _BASE = "seed", "base"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A cell and one of its runs (`round` counts them from 1). `run` is None where it hasn't finished: see `reason`."""

    cell: Cell
    round: int
    run: Run | None
    result: Result | None

    @property
    def reason(self) -> str:
        """Why there is no run."""
        return "" if self.run else self.result.reason if self.result else "not run yet"

    def of(self, name: str) -> str:
        """Return the line's arm, block, round or factor; "" for a factor that its block doesn't have."""
        own = {"arm": self.cell.arm, "block": self.cell.block, "round": str(self.round)}
        return own.get(name) or self.cell.factors.get(name, "")

    def metric(self, name: str) -> float | None:
        """Return a metric of the run; None where it has none."""
        value = self.run.metrics.get(name) if self.run else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """All lines of a study, in the plan's order."""

    plan: Plan
    lines: Sequence[Line]

    def where(self, **wanted: str | Sequence[str]) -> list[Line]:
        """Return the lines with these values, each one or one of several."""
        lists = {name: [one] if isinstance(one, str) else list(one) for name, one in wanted.items()}
        return [line for line in self.lines if all(line.of(name) in values for name, values in lists.items())]

    @property
    def runs(self) -> list[Run]:
        """The finished runs, each once."""
        return list({line.run.id: line.run for line in self.lines if line.run}.values())

    @property
    def trainings(self) -> int:
        """How many different trainings the finished runs rest on."""
        keys = {stage["key"] for run in self.runs for stage in run.stages if stage["label"] == "train" and _trains(run)}
        return len(keys)

    @cached_property
    def mixed_revisions(self) -> list[str]:
        """Parts whose code changed between these runs, with their revisions: such runs aren't comparable."""
        found: dict[str, set[str]] = {}
        for run in self.runs:
            classes = flattened(dict(run.config))
            for name, value in classes.items():
                if name.endswith("class"):
                    revision = classes.get(f"{name.removesuffix('class')}revision")
                    found.setdefault(str(value), set()).add(str(revision))
        return [f"{name}: {', '.join(sorted(seen))}" for name, seen in sorted(found.items()) if len(seen) > 1]


def _trains(run: Run) -> bool:
    return run.choices.get("trainer") != "none"


def read_outcomes(plan: Plan, store: Path) -> Outcomes:
    """Read what the store has of a study."""
    place = Place(store=store, name=plan.name)
    results = place.results(plan.jobs)
    known: dict[str, Run] = {}
    lines: list[Line] = []
    for cell in plan.cells:
        result = results.get(cell.job)
        names = result.runs if result and result.status == "finished" else ()
        for name in names:
            known.setdefault(name, read_run(store / "runs" / name))
        runs: Sequence[Run | None] = [known[name] for name in names] or [None]
        lines += [Line(cell=cell, round=place + 1, run=run, result=result) for place, run in enumerate(runs)]
    return Outcomes(plan=plan, lines=lines)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Right and wrong items of lines: `columns` name what is compared, `splits` the splits in their order."""

    splits: Sequence[str]
    runs: Sequence[Answered]

    def places(self, wanted: str) -> list[int]:
        """Return the places of splits: "mean" (all), "in domain", "out of distribution", or one by its name."""
        if wanted == "mean":
            return list(range(len(self.splits)))
        if wanted in ("in domain", "out of distribution"):
            outside = wanted == "out of distribution"
            return [place for place, name in enumerate(self.splits) if (name in OUT_OF_DISTRIBUTION) == outside]
        return [self.splits.index(wanted)]


def answers_of(lines: Sequence[Line], columns: Sequence[str]) -> Answers:
    """Return the test items of those lines that have any; a column is named by these factors' values.

    Items are put into one order a seed, so that runs of a seed can be compared item by item.
    """
    found: list[Answered] = []
    splits: list[str] = []
    for line in lines:
        tasks = items(line.run).get(ACCURACY) if line.run else None
        if not tasks:
            continue
        splits = splits or [name.removeprefix(_TASK) for name in sorted(tasks)]
        ordered = [[values[item] for item in sorted(values, key=_number)] for _, values in sorted(tasks.items())]
        found.append(
            Answered(
                column=column_of(line, columns),
                seed=line.of(_SEED),
                base=line.of(_BASE),
                right=np.array(ordered, dtype=np.float64),
            )
        )
    return Answers(splits=splits, runs=found)


def column_of(line: Line, columns: Sequence[str]) -> str:
    """Return the name of a line's column."""
    return " | ".join(line.of(name) for name in columns)


def _number(item: str) -> int:
    return int(item.rpartition(":")[2])


def share_with(line: Line, phrase: str, where: str) -> float | None:
    """Return in what share of texts a phrase stands: `offered` by the teacher, `kept`, or `written` in the test."""
    texts = list(_texts(line.run, where)) if line.run else []
    return sum(phrase in text for text in texts) / len(texts) if texts else None


def _texts(run: Run, where: str) -> Iterator[str]:
    if where == "kept":
        training = table(run, "assemble", "training")
        if training is not None:
            own = own_rows(training)
            yield from own.filter(own["kept"])["response"].to_pylist()
    elif where == "offered":
        for label in ("reflect_instruction", "reflect_response"):
            made = table(run, label, "candidates", ("status", "response"))
            if made is not None:
                yield from (one["response"] for one in made.to_pylist() if one["status"] == "ok")
    else:
        folder = run.artifact("evaluate/testbed")
        for text in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines() if folder else ():
            yield json.loads(text)["resps"][0][0]


def scored_versions(line: Line) -> pa.Table | None:
    """Return the scores of every version of a line's run, with their texts; None where nothing was scored."""
    return table(line.run, "scores", "scores") if line.run else None


def training(line: Line) -> pa.Table | None:
    """Return the training table of a line's run."""
    return table(line.run, "assemble", "training") if line.run else None


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the mean and the standard deviation of what is known; None where nothing is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else math.nan


def record(line: Line, names: Sequence[str]) -> Mapping[str, Any]:
    """Return a line's row of results.csv: what it is, how it went, and its metrics."""
    run = line.run
    keys = {f"key/{one['label']}": str(one["key"])[:12] for one in run.stages} if run else {}
    return {
        "block": line.cell.block,
        "arm": line.cell.arm,
        **{name: line.of(name) for name in names},
        "round": line.round,
        "status": run.status if run else line.reason,
        "seconds": line.result.seconds if line.result else None,
        "cpu_seconds": line.result.cpu_seconds if line.result else None,
        **{name: value for name, value in (run.metrics if run else {}).items() if _told(name)},
        "run": run.id if run else "",
        **{name: key for name, key in keys.items() if name.endswith(("assemble", "train", "testbed"))},
    }


def _told(name: str) -> bool:
    """Say whether a metric is for results.csv: evaluations, and what was kept."""
    return name.startswith("evaluate/") or name in ("assemble/kept", "assemble/rows", "train/steps", "train/epochs")
