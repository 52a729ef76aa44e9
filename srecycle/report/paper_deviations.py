"""In what a run differs from the paper's setting, as far as a reader of its figures must know.

In: a run as a subject, the line of a table that it belongs to, and the evaluations that its figures are from. Out:
short remarks. None of them means that nothing known differs; what holds for every run (our wordings of reflection and
judgment, the scores' wording) is told once, in experiments/paper/README.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srecycle.report.paper_published import Line, Table, published, setting
from srecycle.report.paper_subject import Subject, last, override, part
from srecycle.report.runs import Run
from srecycle.rows import PHASES

_TUNED = {"LoRATrainer": "LoRA", "QLoRATrainer": "QLoRA"}
_JUDGED = ("AlpacaEval", "Pairwise", "MTBench")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One of a run's evaluations: its `label` and settings, and with what its figures' names begin."""

    label: str
    settings: Mapping[str, Any]
    prefix: str = ""

    def name(self, metric: str) -> str:
        """Return the name of one of its metrics."""
        return f"evaluate/{self.label}/{self.prefix}{metric}"


def deviations(one: Subject, table: Table, line: Line, evaluations: Sequence[Evaluation]) -> list[str]:
    """Return what differs, in words."""
    found = [*_measured(one, table, evaluations)]
    if "student" not in line:
        found = [*_model(one, line), *_trained(one, line), *_data(one, line), *_reflected(one, line), *found]
    return list(dict.fromkeys([*found, *([line["about"]] if "about" in line else [])]))


def _model(one: Subject, line: Line) -> Iterator[str]:
    student = part(one.run, "student")
    if not one.is_papers(line):
        yield f"model: {Path(one.student).name}"
    if student.get("adapter") or student.get("adapters"):
        yield "the model had been trained before"
    if student.get("max_length") != setting()["max_length"]:
        yield f"cut at {student.get('max_length')} tokens"
    if part(one.run, "template").get("user") != setting()["template"]:
        yield f"template: {one.run.choices.get('template', 'another')}"


def _trained(one: Subject, line: Line) -> Iterator[str]:
    if "version" in line:  # about data: nothing is trained for it
        return
    trainer = part(one.run, "trainer")
    if last(trainer) != "FullTrainer":
        yield _TUNED.get(last(trainer), last(trainer))
    if last(trainer) not in ("FullTrainer", *_TUNED):
        return
    for name, wanted in setting()["training"][line["size"]].items():
        if trainer.get(name) != wanted and not (name == "epochs" and trainer.get("match") != "epochs"):
            yield f"{name.replace('_', ' ')} {_plain(trainer.get(name))}"


def _data(one: Subject, line: Line) -> Iterator[str]:
    known = setting()["data"].get(one.data)
    if one.data != line["data"]:
        yield f"data: {known['title'] if known else Path(override(one.run, 'data.path')).name or 'another set'}"
    elif known and part(one.run, "data").get("path") != known["sha256"]:
        yield "data: not the paper's file"
    rows = one.run.metrics.get("source/rows")
    if known and rows is not None and rows != known["rows"]:
        yield f"{rows:,} of {known['rows']:,} rows"


def _reflected(one: Subject, line: Line) -> Iterator[str]:
    """Tell of another teacher, and of settings of the selection that aren't the arm's."""
    version = line.get("version")
    if line["arm"] != "original" and version != "original":
        yield from _teacher(one)
    if version in ("original", "both"):  # the same whatever is selected
        return
    for phase in PHASES:
        if margin := part(one.run, "selector", phase).get("margin"):
            yield f"margin {margin:g} on the {phase}"
    kept = filters(one.run)
    if kept != sorted(published()["arms"][line["arm"]]["keep"]):
        yield f"keeps by {', '.join(kept) or 'nothing'}"


def _teacher(one: Subject) -> Iterator[str]:
    teacher = part(one.run, "teacher")
    if last(teacher) == "ReplayTeacher":
        if not str(teacher.get("path")).startswith(setting()["released"]):
            yield "teacher: recorded replies"
    elif not (model := _model_of(teacher)).startswith(setting()["teacher"]):
        yield f"teacher: {model}"


def filters(run: Run) -> list[str]:
    """Return the keep filters that decide which rows of an arm there are, with their limits, sorted."""
    return sorted(filter(None, map(_filter, part(run, "keep").values())))


def _filter(settings: Mapping[str, Any]) -> str:
    """Name a keep filter with its limit; "" for one that refuses nothing, or that draws the share of a line."""
    name, below = last(settings), settings.get("below")
    if name in ("KeepAll", "Top", "RandomShare") or settings.get("fraction") == 1.0:
        return ""
    return name if below is None else f"{name} {below:g}"


def _measured(one: Subject, table: Table, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Tell how evaluations deviate: other items, another judge, other shots, the harness."""
    for each in evaluations:
        if limit := each.settings.get("limit"):
            yield f"{limit} items a task"
        if last(each.settings) == "LMEval":
            yield from _benchmarked(each.settings)
        if last(each.settings) in _JUDGED:
            yield from _judged(one, table, each)


def _benchmarked(settings: Mapping[str, Any]) -> Iterator[str]:
    if (averaged := {*settings.get("metrics", {})}) != {*setting()["shots"]}:
        yield f"average of {', '.join(sorted(averaged)) or 'nothing'}"
    if settings.get("num_fewshot") != setting()["shots"]:
        yield f"shots: {_plain(settings.get('num_fewshot'))}"
    if settings.get("apply_chat_template"):
        yield "benchmarks in the chat template"
    yield f"lm-eval {settings.get('lm_eval', 'of an unknown version')}, the paper's was older"


def _judged(one: Subject, table: Table, each: Evaluation) -> Iterator[str]:
    if each.settings.get("model_outputs"):
        yield "outputs that were made elsewhere"
    model = "recorded annotations" if each.settings.get("annotations") else _judge(each.settings.get("judge") or {})
    if not re.fullmatch(rf"{setting()['judge']}(-0\d\d\d)?", model):
        yield f"judge: {model}"
    kind = str(table["set"]) if last(each.settings) == "Pairwise" else last(each.settings)
    counted, items = setting()["asked"][kind]
    prefix = each.prefix or counted
    asked, judged = (one.run.metrics.get(f"evaluate/{each.label}/{prefix}{name}") for name in ("asked", "judged"))
    if asked != items:
        yield f"{_plain(asked)} of {items:,} {'answers' if kind == 'MTBench' else 'prompts'}"
    if asked != judged:
        yield f"{_plain(judged)} of {_plain(asked)} judged"


def _judge(judge: Mapping[str, Any]) -> str:
    return "recorded reviews" if last(judge) == "ReplayJudge" else _model_of(judge.get("teacher") or judge)


def _model_of(teacher: Mapping[str, Any]) -> str:
    """Name the model that a teacher asks."""
    model = teacher.get("model")
    if isinstance(model, Mapping):
        model = model.get("path")
    return str(model or last(teacher) or "unknown")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else str(value)
