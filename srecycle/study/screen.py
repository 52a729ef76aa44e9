"""Studies' tables on the screen."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH_WHERE_PIPED = 200


def study_console() -> Console:
    """Return a console that is wide enough for a table where its output is piped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHERE_PIPED)


def show_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of texts. The first column is left-aligned."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(escape(heading), justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    study_console().print(table)


def number(value: float | None) -> str:
    """Write a figure shortly; "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
