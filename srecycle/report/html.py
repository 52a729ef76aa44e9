"""The report: one self-contained HTML file that compares runs and shows what each of them did.

In: runs. Out: a file with its style, script and figures inside, which fetches nothing and looks the same for the same
runs: its dates are those of the runs. Everything that came from data, a teacher or a command line is untrusted: the
template escapes all of it, control characters are made visible, and the page's policy lets no script run but its own.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from srecycle import __version__
from srecycle.config import flattened
from srecycle.errors import UserError
from srecycle.report.charts import Chart
from srecycle.report.comparison import (
    Entry,
    best,
    compared,
    differences,
    entries,
    finding,
    group,
    lower_is_better,
    number,
    spoken,
)
from srecycle.report.curves import curve_chart, distribution_chart
from srecycle.report.evidence import Case, cases, curve, distributions
from srecycle.report.figures import composition_chart, evaluation_charts
from srecycle.report.runs import Run

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_CASES, _ALL_CASES = 20, 240
"""Sampled rows a run, and in the whole report: a sweep of a hundred runs must still open in a browser."""


def write_report(runs: Sequence[Run], path: Path) -> Path:
    """Write the report of these runs, whole or not at all, and return its path. Raises UserError where it can't."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name may hold half of a surrogate pair (JSON allows it), which no encoding can write.
        temporary.write_text(rendered(runs), encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"the report {path} can't be written: {error.strerror}") from error
    return path


def rendered(runs: Sequence[Run]) -> str:
    """Return the report as HTML. The same runs over the same store give the same text."""
    found = entries(runs)
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            version=__version__,
            title=_title(runs),
            when=_when(runs),
            stores=sorted({str(run.store) for run in runs}),
            finding=finding(found),
            columns=(columns := _columns(found)),
            spans=[Span(title=title, width=len(list(few))) for title, few in groupby(columns, attrgetter("group"))],
            entries=found,
            charts=_charts(found),
            differences=differences(runs),
            details=[_details(entry, max(4, min(_MOST_CASES, _ALL_CASES // len(found)))) for entry in found],
            style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(number=number, spoken=spoken, share=lambda value: f"{value:.1%}")
    return environment


_HIDDEN = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_TURNING = {code: f"[U+{code:04X}]" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_TRANSLATED = {**_HIDDEN, **_TURNING}


def _visible(value: Any) -> Any:
    """Make control characters visible, and those that turn the direction of the text around them harmless."""
    return value.translate(_TRANSLATED) if isinstance(value, str) and not isinstance(value, Markup) else value


def _title(runs: Sequence[Run]) -> str:
    groups = {run.group for run in runs}
    if len(runs) == 1:
        return runs[0].name
    return groups.pop() or f"{len(runs)} runs" if len(groups) == 1 else f"{len(runs)} runs"


def _when(runs: Sequence[Run]) -> str:
    """Return when the runs started, first and last, as their ids say (UTC)."""
    moments = sorted(moment for run in runs if (moment := _moment(run)))
    if not moments:
        return ""
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def _moment(run: Run) -> datetime | None:
    try:
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure's column in the comparison: where it stands, what it is called, and its best value."""

    name: str
    group: str
    title: str
    best: float | None
    lower_is_better: bool


@dataclass(frozen=True, kw_only=True)
class Span:
    """A title over neighbouring columns, and how many they are."""

    title: str
    width: int


def _columns(found: Sequence[Entry]) -> list[Column]:
    return [
        Column(
            name=name,
            group=spoken(group(name)),
            title=spoken(name.rpartition("/")[2]),
            best=best(found, name),
            lower_is_better=lower_is_better(name),
        )
        for name in compared(found)
    ]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A figure's place in the report: the charts, or where there are none a sentence that says why."""

    title: str
    charts: Sequence[Chart]
    missing: str
    explains_scores: bool = False


def _charts(found: Sequence[Entry]) -> list[Section]:
    scored = {entry.label: one for entry in found if (one := distributions(entry.run))}
    trained = {entry.label: losses for entry in found if (losses := curve(entry.run))}
    composition, scores, curves = composition_chart(found), distribution_chart(scored), curve_chart(trained)
    return [
        Section(
            title="Evaluation",
            charts=evaluation_charts(found),
            missing="No run has an evaluation figure with a standard error.",
        ),
        Section(
            title="What the training sets are made of",
            charts=[composition] if composition else [],
            missing="No run came so far as to assemble a training set.",
        ),
        Section(
            title="IFD and r-IFD before and after",
            charts=[scores] if scores else [],
            missing="No run has likelihoods: none of the selectors and keep filters asked for them, "
            "or their tables are no longer in the store.",
            explains_scores=True,
        ),
        Section(
            title="Training curves",
            charts=[curves] if curves else [],
            missing="No run has a training curve.",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts by reason, most frequent first, with the total that shares refer to."""

    title: str
    counts: Sequence[tuple[str, int]]
    total: int


@dataclass(frozen=True, kw_only=True)
class Details:
    """What the section of one run shows."""

    entry: Entry
    tallies: Sequence[Tally]
    cases: Sequence[Case]
    config: Sequence[tuple[str, str]]
    metrics: Sequence[tuple[str, str]]

    @property
    def outcomes(self) -> list[str]:
        """The outcomes of the sampled rows, in their order."""
        return list(dict.fromkeys(case.outcome for case in self.cases))


_TALLIES = {
    "reflect_instruction/instruction/": "Replies on the instruction",
    "select_instruction/reason/": "Decisions on the instruction",
    "reflect_response/response/": "Replies on the original's response",
    "reflect_response/both/": "Replies on the new instruction's response",
    "select_response/reason/": "Decisions on the response",
    "assemble/refused/": "Refused by the keep filters",
    "train/refused/": "Refused by the trainer",
}


def _details(entry: Entry, most_cases: int) -> Details:
    run = entry.run
    flat = flattened(dict(run.config))
    return Details(
        entry=entry,
        tallies=[tally for prefix, title in _TALLIES.items() if (tally := _tally(run, prefix, title)).counts],
        cases=cases(run, most_cases),
        config=[(name, str(flat[name])) for name in sorted(flat)],
        metrics=[(name, _written(run.metrics[name])) for name in sorted(run.metrics)],
    )


def _tally(run: Run, prefix: str, title: str) -> Tally:
    counts = {
        name.removeprefix(prefix): int(value)
        for name, value in run.metrics.items()
        if name.startswith(prefix) and isinstance(value, int)
    }
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return Tally(title=title, counts=ordered, total=max(int(run.metrics.get("assemble/rows", 0)), sum(counts.values())))


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
