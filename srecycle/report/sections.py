"""The report's figures, in their order: charts and tables, or a sentence that says why there are none."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from srecycle.report.cells import Grid
from srecycle.report.charts import Chart
from srecycle.report.comparison import Entry, compared, lower_is_better, spoken
from srecycle.report.composition import composition_chart, outcomes_chart
from srecycle.report.curves import curve_chart, distribution_chart
from srecycle.report.evidence import curve, distributions
from srecycle.report.figures import evaluation_charts
from srecycle.report.heat import pairing_chart, surface_chart
from srecycle.report.paired import paired_grids
from srecycle.report.paper import paper_grids, published
from srecycle.report.relations import cost_chart, sweep_charts

MOST_DRAWN = 40
"""So many runs have their row in a chart: no reader compares more, and tables show all."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A place in the report. One without charts, tables and a word about what is `missing` is left out.

    `short` is its name where there is little room. `partial` says that it shows those runs only that charts with a row
    for each have room for.
    """

    title: str
    short: str
    missing: str = ""
    charts: Sequence[Chart] = ()
    grids: Sequence[Grid] = ()
    note: str = ""
    explains_scores: bool = False
    partial: bool = False

    @property
    def anchor(self) -> str:
        """Its name in links."""
        return f"section-{self.short.lower().replace(' ', '-')}"


def sections(found: Sequence[Entry], *, paper: bool = False) -> list[Section]:
    """Return the sections of these runs; where `paper`, its tables come first."""
    shown, said = drawn(found)
    every = [*(_paper(found) if paper else ()), *_all(found, shown)]
    return [_noted(one, said) if one.partial else one for one in every if one.charts or one.grids or one.missing]


def _paper(found: Sequence[Entry]) -> Iterator[Section]:
    yield Section(
        title="Beside the paper",
        short="Paper",
        grids=paper_grids(found),
        note=f"Source: {published()['source']}. Own figures are those of this store's runs whose arm, data set, size "
        "and share of rows are the line's; a line without one has the command that makes it. What deviates from the "
        "paper's setting makes it another experiment: the paper tunes all weights of Llama 2, and GPT-4 judges. Its "
        "leaderboard's MMLU came from an older harness. Files and costs: experiments/paper/README.md.",
    )


def drawn(found: Sequence[Entry]) -> tuple[list[Entry], str]:
    """Return the runs that charts show, in their order, and a sentence where that isn't all of them."""
    if len(found) <= MOST_DRAWN:
        return list(found), ""
    name = next(iter(compared(found)), None)
    sign = -1 if name and not lower_is_better(name) else 1
    known = [entry for entry in found if not entry.failed]
    if name:
        known.sort(key=lambda entry: sign * entry.figures[name].value if name in entry.figures else float("inf"))
    chosen = {entry.run.id for entry in known[:MOST_DRAWN]}
    by = f"the best {MOST_DRAWN} by {spoken(name)}" if name else f"the first {MOST_DRAWN}"
    return [entry for entry in found if entry.run.id in chosen], f" Of {len(found)} runs, {by} are shown."


def _noted(section: Section, said: str) -> Section:
    charts = [replace(one, caption=one.caption + said) for one in section.charts]
    grids = [replace(one, note=one.note + said) for one in section.grids]
    return replace(section, charts=charts, grids=grids)


def _all(found: Sequence[Entry], shown: Sequence[Entry]) -> Iterator[Section]:
    yield Section(
        title="Evaluation",
        short="Evaluation",
        charts=evaluation_charts(shown),
        missing="No run has an evaluation figure with a standard error.",
        partial=True,
    )
    yield Section(
        title="Differences between runs, item by item", short="Item by item", grids=paired_grids(shown), partial=True
    )
    yield Section(title="Cost against quality", short="Cost", charts=_some(cost_chart(found)))
    yield Section(
        title="Swept settings", short="Swept settings", charts=[*_some(surface_chart(found)), *sweep_charts(found)]
    )
    yield Section(title="Teachers and students", short="Teachers and students", charts=_some(pairing_chart(found)))
    yield Section(
        title="What the training sets are made of",
        short="Training sets",
        charts=[*_some(composition_chart(shown)), *_some(outcomes_chart(shown))],
        missing="No run came so far as to assemble a training set.",
        partial=True,
    )
    yield Section(
        title="IFD and r-IFD before and after",
        short="Scores",
        charts=_some(distribution_chart({one.label: two for one in shown if (two := distributions(one.run))})),
        missing="No run has likelihoods: none of the selectors and keep filters asked for them, "
        "or their tables are no longer in the store.",
        explains_scores=True,
        partial=True,
    )
    yield Section(
        title="Training curves",
        short="Training curves",
        charts=_some(curve_chart({one.label: losses for one in shown if (losses := curve(one.run))})),
        missing="No run has a training curve.",
        partial=True,
    )


def _some(chart: Chart | None) -> list[Chart]:
    return [chart] if chart else []
