"""Own figures beside the paper's: its tables 1, 2 and 4 to 9 (3 is part of 7), filled from whatever has been run.

In: runs, and `paper.json` (the paper's figures, arXiv:2402.10110). A run belongs to a line where its selectors are
those of the line's arm, its data set is the line's, and so are its student's size and the share of rows it keeps; for
pairs, the other answers must be those of a run of the arm compared with. What else differs from the paper's setting
(LoRA, the model, the judge, a part of the items) is told beside the figures: it makes them another experiment. A line
without a run says which command makes it. Runs on the micro-world stand in no line.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srecycle.report.cells import Cell, Grid, figure, word
from srecycle.report.comparison import Entry
from srecycle.report.paper_command import command
from srecycle.report.paper_deviations import Evaluation, deviations, filters
from srecycle.report.paper_published import Line, Table, published
from srecycle.report.paper_statistics import statistics
from srecycle.report.paper_subject import Subject, answers_of, is_micro_world, last, part, subjects
from srecycle.report.runs import Figure

__all__ = ["paper_grids", "published"]

REMARKS = "what deviates, or how to run it"
_LABEL = 60


@dataclass(frozen=True, kw_only=True)
class _Filled:
    """A line of a table with what one run has of it."""

    line: Line
    own: Sequence[Figure | None]
    subject: Subject
    evaluations: Sequence[Evaluation]

    @property
    def source(self) -> tuple[Path | str, ...]:
        """Where the figures are from: the artifacts of evaluations, or of scores, and how rows were chosen."""
        run, kept = self.subject.run, self.line.get("version") == "kept"
        labels = [f"evaluate/{one.label}" for one in self.evaluations] or ["scores"]
        labels += ["select_response"] if kept else []
        return *(run.artifact(label) or run.folder for label in labels), *(filters(run) if kept else ())


def paper_grids(found: Sequence[Entry]) -> list[Grid]:
    """Return the paper's tables: a row of its figures, then for each run of that line its own and the differences.

    The last cell says what deviates from the paper's setting, or which command makes a line that wasn't run.
    """
    known = subjects(found)
    answers = answers_of(known)
    left_out = sum(is_micro_world(entry.run) for entry in found)
    return [_grid(table, known, answers, left_out) for table in published()["tables"]]


def _grid(table: Table, known: Sequence[Subject], answers: Mapping[str, Subject], left_out: int) -> Grid:
    filled = [(line, _filled(table, line, known, answers)) for line in table["rows"]]
    notes = [] if any(own for _, own in filled) else ["No run of this store has figures for it."]
    if left_out:
        notes.append(f"Runs on the micro-world ({left_out}) stand in no line: they measure something else.")
    return Grid(
        name=f"paper-table-{table['number']}",
        title=f"Table {table['number']}: {table['title']}",
        heads=["model or arm", "whose", *(column["title"] for column in table["columns"]), REMARKS],
        rows=[row for line, own in filled for row in _rows(table, line, own)],
        note=" ".join(notes),
    )


def _filled(table: Table, line: Line, known: Sequence[Subject], answers: Mapping[str, Subject]) -> list[_Filled]:
    """Return the line once for every run that has figures for it."""
    matching = [_own(one, table, line, answers) for one in known if one.belongs(line)]
    # How many rows a run trained on is no figure of the table's: it only stands beside them.
    told = [place for place, column in enumerate(table["columns"]) if "metric" in column]
    having = [one for one in matching if any(one.own[place] is not None for place in told)]
    # Runs that read a line from the same results have the same figures: the one that has most of them stands for all.
    standing = {one.source: one for one in sorted(having, key=lambda one: sum(each is not None for each in one.own))}
    return [one for one in having if standing[one.source] is one]


def _own(one: Subject, table: Table, line: Line, answers: Mapping[str, Subject]) -> _Filled:
    """Return what a run has of a line."""
    data = statistics(one.run, line["version"]) if "version" in line else {}
    found, used = list[Figure | None](), dict[str, Evaluation]()
    for column in table["columns"]:
        if "run" in column:
            value = one.run.metrics.get(column["run"]) if one.trained else None
            found.append(Figure(value=value) if isinstance(value, int | float) else None)
        elif "version" in line:
            found.append(Figure(value=data[column["metric"]]) if column["metric"] in data else None)
        else:
            kind = column.get("evaluator", table["evaluator"])
            fitting = (each for each in _evaluations(one, kind, table, line, answers))
            each = next((each for each in fitting if each.name(column["metric"]) in one.run.metrics), None)
            found.append(_figure(one, each.name(column["metric"]), column.get("scale", 1)) if each else None)
            used |= {each.label: each} if each else {}
    return _Filled(line=line, own=found, subject=one, evaluations=list(used.values()))


def _figure(one: Subject, name: str, scale: float) -> Figure | None:
    known = one.entry.figures.get(name.removeprefix("evaluate/"))
    if known is None:
        return None
    return Figure(value=known.value * scale, stderr=None if known.stderr is None else known.stderr * scale)


def _evaluations(
    one: Subject, kind: str, table: Table, line: Line, answers: Mapping[str, Subject]
) -> Iterator[Evaluation]:
    for label, settings in part(one.run, "evaluator").items():
        if last(settings) == kind and _opposes(one, str(settings.get("against")), line, answers):
            for prefix in _sets(one, label, table):
                yield Evaluation(label=label, settings=settings, prefix=prefix)


def _opposes(one: Subject, against: str, line: Line, answers: Mapping[str, Subject]) -> bool:
    """Say whether the other answers are those of the arm that the line is against, in all else like this run."""
    if "against" not in line:
        return True
    other = answers.get(against)
    return other is not None and other.belongs({**line, "arm": line["against"]}) and other.data == one.data


def _sets(one: Subject, label: str, table: Table) -> list[str]:
    """Return the beginnings of the metrics of the table's set of prompts; an evaluator's only set stands for any."""
    if "set" not in table:
        return [""]
    prefix = f"evaluate/{label}/"
    names = {key.removeprefix(prefix).partition("/")[0] for key in one.run.metrics if key.startswith(prefix)}
    if table["set"] == "all":
        return ["all/"]
    sets = sorted(names - {"all", "gap"})
    named = [f"{name}/" for name in sets if table["set"] in name.lower()]
    return named or [f"{name}/" for name in sets if len(sets) == 1]


def _rows(table: Table, line: Line, filled: Sequence[_Filled]) -> Iterator[list[Cell]]:
    """Yield the paper's row, and two for each run."""
    name = word(f"against {line['name']}" if "against" in line else line["name"])
    digits = [column.get("digits", 2) for column in table["columns"]]
    how = "" if filled else command(table, line)
    theirs = [figure(value, places) for value, places in zip(line["values"], digits, strict=True)]
    yield [name, word("paper"), *theirs, word(f"not run: {how}" if how else "")]
    for one in filled:
        remarks = deviations(one.subject, table, line, one.evaluations)
        said = word(f"deviates: {'; '.join(remarks)}" if remarks else "as in the paper")
        own = [_measure(value, places) for value, places in zip(one.own, digits, strict=True)]
        yield [name, _named(one.subject.entry), *own, said]
        named = word("difference" if one.subject.is_papers(line) else "difference, another model")
        found = zip(_differences(table, one), digits, strict=True)
        yield [name, named, *(figure(value, places, signed=True) for value, places in found), word("")]


def _differences(table: Table, one: _Filled) -> list[float | None]:
    """Return how far a run's figures are above the paper's. Counts of other totals have no distance."""
    values = one.line["values"]
    as_many = _counted(table, values) == _counted(table, [own.value if own else None for own in one.own])
    return [
        own.value - value if own and value is not None and (as_many or "counts" not in column) else None
        for value, own, column in zip(values, one.own, table["columns"], strict=True)
    ]


def _counted(table: Table, values: Sequence[float | None]) -> float:
    """Return of how many items a line tells the outcome, where its columns are such counts."""
    columns = zip(values, table["columns"], strict=True)
    return sum(value or 0 for value, column in columns if "counts" in column)


def _named(entry: Entry) -> Cell:
    """Name a run: by its label, or where that is a long list of settings by its name and when it began."""
    run = entry.run
    short = entry.label if len(entry.label) <= _LABEL else f"{run.name} ({run.id[:15]})"
    return word(f"own: {short}", about=entry.label)


def _measure(own: Figure | None, digits: int) -> Cell:
    if own is None or own.stderr is None:
        return figure(own.value if own else None, digits)
    cell = figure(own.value, digits)
    return replace(cell, text=f"{cell.text} ± {own.stderr:,.{digits}f}", stderr=own.stderr)
