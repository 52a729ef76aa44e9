"""A store with a study's runs in it that nobody ran: for the tests of tables."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.rows import TRAINING_SCHEMA
from srecycle.study.jobs import Place, Result
from srecycle.study.plan import Cell, Plan

SPLITS = ("composed_2", "known", "longer", "unseen_2")
Right = Callable[[Cell, str, int], float]
"""Whether a cell's run answers an item of a split right (1) or not (0)."""


def write_runs(
    plan: Plan,
    store: Path,
    right: Right | None = None,
    *,
    items: int = 20,
    metrics: Callable[[Cell], Mapping[str, Any]] = lambda cell: {},
    training: Callable[[Cell], list[dict[str, Any]]] | None = None,
    scores: Callable[[Cell], pa.Table] | None = None,
) -> None:
    """Write a finished run for every job of a plan, with what it answered, kept and scored."""
    place = Place(store=store, name=plan.name)
    (place.folder / "jobs").mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(plan.jobs.values()):
        cell = next(one for one in plan.cells if one.job == job.id)
        run, stages = f"20261121-1200{number:02}-{job.id}", []
        for label, stage, written in (
            ("scores", "scores", scores and _table(store, "scores", job.id, "scores", scores(cell))),
            ("assemble", "assemble", training and _training(store, job.id, training(cell))),
            ("train", "train", True),
            ("evaluate/testbed", "evaluate", right and _samples(store, job.id, cell, right, items)),
        ):
            if written:
                stages.append({"label": label, "stage": stage, "key": job.id, "how": "run", "seconds": 1.0})
        folder = store / "runs" / run
        folder.mkdir(parents=True)
        described = {
            **{"id": run, "name": job.label, "group": plan.name, "status": "finished", "seconds": 1.0},
            **{"overrides": list(job.overrides), "choices": {"job": job.id}, "config": {}, "stages": stages},
            "metrics": dict(metrics(cell)),
        }
        (folder / "run.json").write_text(json.dumps(described))
        place.write(Result(id=job.id, status="finished", runs=(run,), seconds=2.0, cpu_seconds=60.0))


def _table(store: Path, stage: str, key: str, name: str, table: pa.Table) -> bool:
    folder = store / "artifacts" / stage / key
    folder.mkdir(parents=True)
    pq.write_table(table, folder / f"{name}.parquet")
    return True


def _training(store: Path, key: str, lines: list[dict[str, Any]]) -> bool:
    empty = {"input": "", "history": [], "label": "", "source": "", "reason": "", "flip_of": ""}
    whole = [{"id": f"r{n}", "position": n, "kept": True, **empty, **line} for n, line in enumerate(lines)]
    return _table(store, "assemble", key, "training", pa.Table.from_pylist(whole, schema=TRAINING_SCHEMA))


def _samples(store: Path, key: str, cell: Cell, right: Right, items: int) -> bool:
    lines = [
        {
            **{"task": f"micro_world_{split}", "doc_id": item, "doc_hash": f"{cell.factors['seed']}-{split}-{item}"},
            **{"filter": "final_answer", "metrics": ["exact_match"], "exact_match": right(cell, split, item)},
            "resps": [[f"{cell.arm} , the answer is {item} ."]],
        }
        for split in SPLITS
        for item in reversed(range(items))  # a table must not go by the order of lines
    ]
    folder = store / "artifacts" / "evaluate" / key
    folder.mkdir(parents=True)
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return True
