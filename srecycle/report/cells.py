"""Tables as plain data: what a template lays out, what a reader sorts, and what is saved as CSV and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a cell shows, and where it is a number the exact value and its standard error, to sort and to save.

    `ends` are those of an interval. `strong` sets the cell off; `about` is shown when it is pointed at.
    """

    text: str
    value: float | None = None
    stderr: float | None = None
    ends: tuple[float, float] | None = None
    strong: bool = False
    about: str = ""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table: `heads` over `rows` of as many cells, the first of which names its row. `name` is a file's name."""

    name: str
    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


ABSENT = Cell(text="\N{EN DASH}")


def word(text: str, *, strong: bool = False, about: str = "") -> Cell:
    """Return a cell of text."""
    return Cell(text=text, strong=strong, about=about)


def figure(value: float | None, digits: int = 3, *, signed: bool = False, strong: bool = False) -> Cell:
    """Return a cell of a number; a dash where there is none."""
    if value is None:
        return ABSENT
    return Cell(text=f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}", value=value, strong=strong)
