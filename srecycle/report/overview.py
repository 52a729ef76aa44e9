"""The comparison's tables: a line a run with its figures, and a line a run with the settings in which it differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from srecycle.report.comparison import Difference, Entry, best, compared, differences, group, lower_is_better, spoken

MOST_COLUMNS = 40
"""Figures and settings beyond so many stand in the runs' own sections: no screen shows them side by side."""


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


@dataclass(frozen=True, kw_only=True)
class Overview:
    """What both tables show; `more_columns` and `more_settings` are left out. `groups` are those of the runs."""

    entries: Sequence[Entry]
    columns: Sequence[Column]
    more_columns: int
    settings: Sequence[Difference]
    more_settings: int
    shared: Sequence[tuple[str, str]]
    groups: Sequence[str]

    @property
    def spans(self) -> list[Span]:
        """The titles over the figures' columns."""
        return [Span(title=title, width=len(list(few))) for title, few in groupby(self.columns, attrgetter("group"))]


def overview(found: Sequence[Entry], shared: Sequence[tuple[str, str]]) -> Overview:
    """Lay out the tables of these runs. `shared` are the settings that all of them have alike."""
    names, settings = compared(found), differences([entry.run for entry in found])
    return Overview(
        entries=found,
        columns=[_column(found, name) for name in names[:MOST_COLUMNS]],
        more_columns=max(len(names) - MOST_COLUMNS, 0),
        settings=settings[:MOST_COLUMNS],
        more_settings=max(len(settings) - MOST_COLUMNS, 0),
        shared=shared,
        groups=sorted({entry.run.group for entry in found}),
    )


def _column(found: Sequence[Entry], name: str) -> Column:
    return Column(
        name=name,
        group=spoken(group(name)),
        title=spoken(name.rpartition("/")[2]),
        best=best(found, name),
        lower_is_better=lower_is_better(name),
    )
