"""Own figures beside the paper's: its tables 1, 2, 4, 5 and 7 to 9 (3 is part of 7), filled from whatever has been run.

In: runs, and `paper.json` (the paper's figures, arXiv:2402.10110). A run belongs to a line where its selectors are
those of the line's arm, its data set is the line's, and so are its student's size and the share of rows it keeps; for
pairs, the other answers must be those of a run of the arm compared with. What else differs from the paper's setting
(LoRA, the model, the judge, a part of the items) is told beside the figures: it makes them another experiment.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.report.cells import ABSENT, Cell, Grid, figure, word
from srecycle.report.comparison import Entry
from srecycle.report.runs import Run

_FILE = Path(__file__).with_name("paper.json")

_ARMS: Mapping[tuple[str, str], str] = {
    ("Never", "Never"): "original",
    ("Always", "Never"): "instruction",
    ("Never", "Always"): "response",
    ("Always", "Always"): "both",
    ("Random", "Random"): "random",
    ("Coherence", "Coherence"): "coherence",
    ("Perplexity", "Perplexity"): "perplexity",
    ("IFD", "IFD"): "ifd",
    ("ReversedIFD", "ReversedIFD"): "r_ifd",
    ("IFD", "ReversedIFD"): "selective",
}
"""The arms of the paper's ablation by their selectors: on the instruction, on the response."""

_STUDENT = {"7b": "llama-2-7b", "13b": "llama-2-13b"}
_JUDGES = ("gpt-4", "gpt4")
_JUDGED = ("AlpacaEval", "Pairwise", "MTBench")


@cache
def published() -> Mapping[str, Any]:
    """Return the paper's figures: their `source`, and the `tables`."""
    found: Mapping[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a run is, in the paper's terms. `data` is "" where the set is neither of the paper's."""

    entry: Entry
    arm: str
    data: str
    subset: tuple[str, float] | None

    @property
    def run(self) -> Run:
        """The run itself."""
        return self.entry.run


def paper_grids(found: Sequence[Entry]) -> list[Grid]:
    """Return the paper's tables, own figures and differences beside its own. Lines without a run stay empty."""
    subjects = [_subject(entry) for entry in found if not entry.failed]
    answers = _answers(subjects)
    return [_grid(table, subjects, answers) for table in published()["tables"]]


def _subject(entry: Entry) -> Subject:
    run = entry.run
    phases = ("instruction", "response")
    arm = _ARMS.get((_class(run, "selector", phases[0]), _class(run, "selector", phases[1])), "")
    own = " ".join([*_own(run, "data"), str(run.choices.get("data"))]).lower()
    data = "wizardlm" if "wiz" in own else "alpaca" if "alpaca" in own and "data.path" in own else ""
    return Subject(entry=entry, arm=arm, data=data, subset=_subset(run))


def _subset(run: Run) -> tuple[str, float] | None:
    for one in run.config.get("keep", {}).values():
        if _last(one) in ("Top", "RandomShare") and one.get("fraction") is not None:
            return _last(one), float(one["fraction"])
    return None


def _own(run: Run, part: str) -> list[str]:
    return [override for override in run.overrides if override.startswith(f"{part}.")]


def _class(run: Run, *path: str) -> str:
    found: Any = run.config
    for name in path:
        found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return _last(found)


def _last(component: Any) -> str:
    return str(component.get("class", "")).rpartition(".")[2] if isinstance(component, Mapping) else ""


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """A line of a table with what one run has of it: nothing, where there is no such run."""

    line: Mapping[str, Any]
    own: Sequence[float | None]
    subject: Subject | None


def _grid(table: Mapping[str, Any], subjects: Sequence[Subject], answers: Mapping[str, str]) -> Grid:
    lines = [one for line in table["rows"] for one in _filled(table, line, subjects, answers)]
    ran = any(one.subject for one in lines)
    parts = ("", ", own", ", difference") if ran else ("",)
    heads = ["model or arm", *(f"{column['title']}{part}" for column in table["columns"] for part in parts)]
    return Grid(
        name=f"paper-table-{table['number']}",
        title=f"Table {table['number']}: {table['title']}",
        heads=[*heads, *(("own run", "settings that deviate") if ran else ())],
        rows=[_cells(table, one, ran) for one in lines],
        note="" if ran else "No run of this store has figures for it.",
    )


def _filled(
    table: Mapping[str, Any], line: Mapping[str, Any], subjects: Sequence[Subject], answers: Mapping[str, str]
) -> list[_Filled]:
    """Return the line once for every run that belongs to it, or once without."""
    matching = [
        _Filled(line=line, own=list(_figures(one, table, line, answers)), subject=one)
        for one in subjects
        if _belongs(one, line)
    ]
    known = [one for one in matching if any(value is not None for value in one.own)]
    return known or [_Filled(line=line, own=[None] * len(line["values"]), subject=None)]


def _cells(table: Mapping[str, Any], one: _Filled, ran: bool) -> list[Cell]:
    name = one.line["name"]
    cells = [word(f"against {name}" if "against" in one.line else name)]
    for value, own, column in zip(one.line["values"], one.own, table["columns"], strict=True):
        digits = column.get("digits", 2)
        cells.append(figure(value, digits))
        if ran:
            difference = None if own is None or value is None else own - value
            cells += [figure(own, digits), figure(difference, digits, signed=True)]
    if not ran:
        return cells
    if one.subject is None:
        return [*cells, ABSENT, ABSENT]
    return [*cells, word(one.subject.entry.label), word(_deviations(one.subject, table, one.line))]


def _belongs(one: Subject, line: Mapping[str, Any]) -> bool:
    if "arm" not in line or one.arm != line["arm"]:
        return False
    wanted = (line["subset"], line["fraction"]) if line.get("fraction", 1.0) != 1.0 else None
    pairs = "against" in line  # all of one data set: another one can only be a deviation
    size = "13b" if "13b" in _student(one.run).lower() else "7b"
    return (one.data == line["data"] or pairs) and size == line["size"] and one.subset == wanted


def _figures(
    one: Subject, table: Mapping[str, Any], line: Mapping[str, Any], answers: Mapping[str, str]
) -> Iterator[float | None]:
    for column in table["columns"]:
        kind = column.get("evaluator", table["evaluator"])
        values = [
            one.run.metrics.get(f"evaluate/{name}/{part}{column['metric']}")
            for name, settings in one.run.config.get("evaluator", {}).items()
            if _last(settings) == kind and _opposes(settings, line, answers)
            for part in _sets(one.run, name, table)
        ]
        value = next((value for value in values if isinstance(value, int | float)), None)
        yield None if value is None else value * column["scale"]


def _opposes(settings: Mapping[str, Any], line: Mapping[str, Any], answers: Mapping[str, str]) -> bool:
    return "against" not in line or answers.get(str(settings.get("against"))) == line["against"]


def _sets(run: Run, name: str, table: Mapping[str, Any]) -> list[str]:
    """Return the beginnings of the metrics of the table's set of prompts; an evaluator's only set stands for any."""
    if "set" not in table:
        return [""]
    prefix = f"evaluate/{name}/"
    sets = sorted(
        {key.removeprefix(prefix).partition("/")[0] for key in run.metrics if key.startswith(prefix)} - {"all"}
    )
    if table["set"] == "all":
        return ["all/"]
    return [f"{one}/" for one in sets if table["set"] in one.lower()] or [f"{one}/" for one in sets if len(sets) == 1]


def _answers(subjects: Sequence[Subject]) -> dict[str, str]:
    """Return the arm of every file of answers in the store, by its digest: that is how an opponent is known."""
    found: dict[str, str] = {}
    for one in subjects:
        for label in (str(stage["label"]) for stage in one.run.stages):
            file = (one.run.artifact(label) or Path()) / "answers.parquet"
            if label.startswith(("evaluate/", "answers")) and one.subset is None and file.is_file():
                try:
                    found.setdefault(file_digest(file), one.arm)
                except UserError:  # unreadable: it is nobody's then
                    continue
    return found


def _student(run: Run) -> str:
    """Return how the student is called: what was asked for, or the choice."""
    named = [one.partition("=")[2] for one in run.overrides if one.startswith("student.path=")]
    path = run.config.get("student", {}).get("path", "") if isinstance(run.config.get("student"), Mapping) else ""
    shown = named[-1] if named else str(path)
    return shown if shown and not shown.startswith("sha256:") else str(run.choices.get("student", "another model"))


def _deviations(one: Subject, table: Mapping[str, Any], line: Mapping[str, Any]) -> str:
    """Return what differs from the paper's setting, as far as the figures' reader must know; "none" where nothing."""
    run, found = one.run, []
    trainer = _class(run, "trainer")
    if trainer != "FullTrainer":
        found.append({"LoRATrainer": "LoRA", "QLoRATrainer": "QLoRA", "NoTrainer": "not tuned"}.get(trainer, trainer))
    if _STUDENT[line["size"]] not in _student(run).lower():
        found.append(f"model: {Path(_student(run)).name}")
    if one.data != line["data"]:
        found.append(f"data: {run.choices.get('data', 'another set')}")
    kinds = {table["evaluator"], *(column["evaluator"] for column in table["columns"] if "evaluator" in column)}
    for settings in run.config.get("evaluator", {}).values():
        if _last(settings) in kinds:
            found += _measured(settings)
    return "; ".join(dict.fromkeys(found)) or "none"


def _measured(settings: Mapping[str, Any]) -> list[str]:
    """Return how an evaluation deviates: another judge, or a part of the items."""
    found = [f"{settings['limit']} items a task"] if settings.get("limit") else []
    if _last(settings) in _JUDGED:
        judge = settings.get("judge") or {}
        teacher = judge.get("teacher") or judge
        model = str(teacher.get("model") or _last(teacher) or "unknown")
        if not model.lower().startswith(_JUDGES):
            found.append(f"judge: {model}")
    return found
