"""What a run's evaluations say item by item, so that arms can be compared on the same ones.

In: a run. Out: values by what was measured, task and item. Read are lm-eval's `samples.jsonl`, which the micro-world's
evaluator writes too, and `judgments.parquet` of the pairwise evaluator: 2 for a win, 1 for a tie, 0 for a loss, whose
mean is the paper's win rate. Pairs judged against another opponent, or without a verdict, are other items.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.report.runs import Run
from srecycle.report.tables import table

Items = Mapping[str, float]
"""Values by item."""

_STAGE = "evaluate/"
_VERDICTS = {"win": 2.0, "tie": 1.0, "lose": 0.0}


@dataclass(frozen=True, kw_only=True, order=True)
class Measure:
    """What is measured: an evaluator's metric. Tasks are averaged, each weighing as much."""

    evaluator: str
    metric: str

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.evaluator}/{self.metric}"


def items(run: Run) -> dict[Measure, dict[str, Items]]:
    """Return a run's values by measure, task and item. Empty where no evaluator kept any."""
    found: dict[Measure, dict[str, dict[str, float]]] = {}
    for label in (str(stage["label"]) for stage in run.stages):
        if label.startswith(_STAGE):
            evaluator = label.removeprefix(_STAGE)
            for metric, task, item, value in (*_samples(run, label), *_verdicts(run, label)):
                measure = Measure(evaluator=evaluator, metric=metric)
                found.setdefault(measure, {}).setdefault(task, {})[item] = value
    return {measure: dict(tasks) for measure, tasks in found.items()}


def _samples(run: Run, label: str) -> Iterator[tuple[str, str, str, float]]:
    folder = run.artifact(label)
    for line in _lines(folder / "samples.jsonl") if folder else ():
        kind = str(line.get("filter", "none"))
        for metric in line.get("metrics", ()):
            value = line.get(metric)
            if isinstance(value, int | float):
                name = metric if kind == "none" else f"{metric},{kind}"
                yield name, str(line.get("task")), f"{line.get('doc_hash')}:{line.get('doc_id')}", float(value)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines that can be read: a report doesn't fail over a file that was cut."""
    try:
        with file.open(encoding="utf-8") as stream:
            for text in stream:
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line
    except (OSError, ValueError):
        return


def _verdicts(run: Run, label: str) -> Iterator[tuple[str, str, str, float]]:
    judged = table(run, label, "judgments", ("set", "id", "verdict"))
    if judged is None or not {"set", "id", "verdict"} <= set(judged.column_names):
        return
    settings = run.config.get("evaluator", {}).get(label.removeprefix(_STAGE), {})
    for line in judged.to_pylist():
        if line["verdict"] in _VERDICTS:
            yield "win_rate", line["set"], f"{settings.get('against')}:{line['id']}", _VERDICTS[line["verdict"]]
