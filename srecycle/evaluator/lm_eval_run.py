"""Running tasks one by one, each kept on disk as it ends: a killed or failed evaluation goes on with what is missing.

    <scratch>/finished/TASK.json, TASK.jsonl    a task's figures and facts, and its samples; the first is written last
    <scratch>/failed/TASK.txt                   the traceback of a task that could not be run

What the harness computes of a group from its tasks is computed from what they left, by the harness's own arithmetic, in
`lm_eval_results`.
"""

import importlib.metadata
import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srecycle.errors import UserError
from srecycle.evaluator.lm_eval_data import Source, write_overrides
from srecycle.evaluator.lm_eval_model import AddBos, BatchSize, harness_model
from srecycle.evaluator.lm_eval_results import Reported, reported
from srecycle.evaluator.lm_eval_tasks import Catalogue, Definition, folders
from srecycle.evaluator.lm_eval_unit import Settings, Unit, run_unit
from srecycle.progress import quiet_libraries, say
from srecycle.stage import Work
from srecycle.store import write_json
from srecycle.student.model import Loaded

_SECONDS_TO_TELL = 5.0


def runnable(catalogue: Catalogue, names: Sequence[str]) -> list[Definition]:
    """Return what is to be run for these names, once each: tasks, and groups that can't be taken apart.

    Raises UserError where a name is unknown, or a task would be run both within such a group and by itself.
    """
    found: dict[str, Definition] = {}

    def add(one: Definition) -> None:
        if one.kind == "task" or one.inseparable:
            found.setdefault(one.name, one)
        else:
            for member in one.members:
                add(catalogue.find(member))

    for name in names:
        list(catalogue.closure(name))  # finds each member near its group
        add(catalogue.find(name))
    inside = {task.name: one.name for one in found.values() if one.inseparable for task in catalogue.tasks(one.name)}
    if twice := sorted(inside.keys() & found.keys()):
        raise UserError(f"the task {twice[0]} is asked for by itself and in the group {inside[twice[0]]}: choose one")
    return list(found.values())


def run_tasks(
    load: Callable[[], Loaded],
    work: Work,
    *,
    catalogue: Catalogue,
    tasks: Sequence[str],
    batch_size: BatchSize,
    add_bos: AddBos = "auto",
    settings: Settings | None = None,
    sources: Sequence[Source] = (),
    units: Sequence[Unit] = (),
) -> Reported:
    """Run lm-eval tasks on the model that `load` gives, keep what it was asked and answered, and return its figures.

    `units` says how each is run (as its YAML says, where none are given), `sources` what pins their data. Raises
    UserError where tasks fail, when the others are done and kept in the work's scratch folder.
    """
    settings = settings or Settings()
    units = units or [Unit(name=one.name) for one in runnable(catalogue, tasks)]
    loaded: list[Any] = []

    def model() -> Any:
        if not loaded:
            loaded.append(_harness(load(), batch_size, add_bos, settings))
        return loaded[0]

    write_overrides(work.scratch / "pinned", sources)
    definitions = [one for name in tasks for one in catalogue.closure(name)]
    finished = _run_units(units, [*folders(definitions), str(work.scratch / "pinned")], model, settings, work.scratch)
    with (work.folder / "samples.jsonl").open("wb") as stream:
        for name in sorted(finished):
            with _file(work.scratch, name).with_suffix(".jsonl").open("rb") as samples:
                shutil.copyfileobj(samples, stream)
    work.notes["lm_eval"] = {
        "version": importlib.metadata.version("lm_eval"),
        **({"largest_batch": loaded[0].largest, "out_of_memory": loaded[0].splits} if loaded else {}),
    }
    return reported(finished, tasks, catalogue)


def write_results(work: Work, found: Reported, settings: Settings, **more: Any) -> None:
    """Write `results.json`: the figures, and what they were measured with."""
    write_json(
        work.folder / "results.json",
        {
            "harness": f"lm-eval {importlib.metadata.version('lm_eval')}",
            "limit": settings.limit,
            "apply_chat_template": settings.apply_chat_template,
            "seed": settings.seed,
            "results": found.metrics,
            **found.facts,
            **more,
        },
    )


def _harness(loaded: Loaded, batch_size: BatchSize, add_bos: AddBos, settings: Settings) -> Any:
    if settings.apply_chat_template and not loaded.tokenizer.chat_template:
        raise UserError("apply_chat_template=true, but the student's tokenizer has no chat template: leave it off")
    with quiet_libraries():
        return harness_model(loaded, batch_size, add_bos)


def _run_units(
    units: Sequence[Unit], indexed: Sequence[str], model: Callable[[], Any], settings: Settings, scratch: Path
) -> dict[str, Mapping[str, Any]]:
    """Run what isn't finished yet, and return all units' facts by name.

    Raises UserError, when all else is done, where units failed: it names them, and running again runs only them.
    """
    missing = [unit for unit in units if not _file(scratch, unit.name).exists()]
    if done := len(units) - len(missing):
        say(f"  {done} of {len(units)} tasks were finished before")
    manager = _manager(indexed) if missing else None
    shutil.rmtree(scratch / "failed", ignore_errors=True)
    failures: dict[str, str] = {}
    for number, unit in enumerate(missing, done + 1):
        harness, started = model(), time.monotonic()
        try:
            facts, samples = run_unit(unit, manager, harness, settings)
        except Exception as error:  # noqa: BLE001 - whatever a task's data or code raises, the others are run
            failures[unit.name] = _told(error)
            _keep_traceback(scratch, unit.name)
        else:
            _write_samples(_file(scratch, unit.name).with_suffix(".jsonl"), samples)
            write_json(_file(scratch, unit.name), facts)
        if unit.name in failures or time.monotonic() - started >= _SECONDS_TO_TELL:
            say(f"  {number}/{len(units)} {unit.name}" + (" failed" if unit.name in failures else ""))
    if failures:
        told = "; ".join(f"{name} ({why})" for name, why in failures.items())
        raise UserError(
            f"{len(failures)} of {len(units)} lm-eval tasks failed: {told}; the others are kept, and the same command "
            f"runs only what is missing; tracebacks are in {scratch / 'failed'}"
        )
    return {unit.name: json.loads(_file(scratch, unit.name).read_text()) for unit in units}


def _manager(indexed: Sequence[str]) -> Any:
    from lm_eval.tasks import TaskManager

    with quiet_libraries():
        return TaskManager(include_path=list(indexed), include_defaults=False)


def _file(scratch: Path, name: str) -> Path:
    return scratch / "finished" / f"{quote(name, safe='')}.json"


def _write_samples(file: Path, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        for task, lines in sorted(samples.items()):
            for sample in sorted(lines, key=lambda one: int(one["doc_id"])):
                stream.write(json.dumps({"task": task, **sample}, default=str, sort_keys=True) + "\n")


def _keep_traceback(scratch: Path, name: str) -> None:
    file = scratch / "failed" / f"{quote(name, safe='')}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(traceback.format_exc(), encoding="utf-8")


def _told(error: Exception) -> str:
    """Put what went wrong into a line."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, UserError):
        return words
    if isinstance(error, ConnectionError):
        return f"its data can't be fetched: {words}"
    return f"{type(error).__name__}: {words}"
