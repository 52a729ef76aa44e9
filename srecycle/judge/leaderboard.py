"""AlpacaEval's figures from files of annotations, beside the paper's table 1 (arXiv:2402.10110). Asks nobody.

The published rows are version 1's, so they stand beside annotations of version 1 only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from srecycle.errors import UserError
from srecycle.judge.annotations import REFERENCE, Version, figures, read_annotations, versions_of
from srecycle.judge.counts import unjudged
from srecycle.judge.screen import to_screen
from srecycle.stage import Metrics


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of the paper's table 1: win rate and standard error in percent, length in characters."""

    model: str
    win_rate: float
    standard_error: float
    wins: int
    draws: int
    avg_length: int


def _published(*row: str | float) -> Published:
    model, rate, error, *counts = row
    wins, draws, length = map(int, counts)
    return Published(
        model=str(model), win_rate=float(rate), standard_error=float(error), wins=wins, draws=draws, avg_length=length
    )


TABLE_1: Sequence[Published] = (
    _published("GPT4", 95.28, 0.72, 761, 12, 1365),
    _published("Claude 2", 91.36, 0.99, 734, 1, 1069),
    _published("Zephyr 7B Beta", 90.60, 1.03, 727, 1, 1444),
    _published("ChatGPT", 89.37, 1.08, 716, 5, 827),
    _published("sRecycled WizardLM 13B", 85.96, 1.23, 692, 0, 1523),
    _published("sRecycled WizardLM 7B", 83.48, 1.31, 672, 0, 1583),
    _published("LLaMA2 Chat 13B", 81.09, 1.38, 652, 0, 1513),
    _published("sRecycled Alpaca 7B", 79.58, 1.42, 639, 0, 1353),
    _published("Recycled WizardLM 7B", 78.88, 1.44, 635, 0, 1494),
    _published("Recycled Alpaca 7B", 76.99, 1.49, 619, 0, 1397),
    _published("Vicuna 7B v1.3", 76.84, 1.49, 614, 3, 1110),
    _published("WizardLM 13B", 75.31, 1.51, 601, 9, 985),
    _published("LLaMA2 Chat 7B", 71.37, 1.59, 574, 1, 1479),
    _published("Davinci003", 50.00, 0.00, 0, 805, 307),
    _published("LIMA 7B", 41.29, 1.74, 332, 0, 1624),
    _published("Alpaca 7B", 26.46, 1.54, 205, 16, 396),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file's figures (srecycle.judge.annotations.figures), whose they are, and against whom."""

    model: str
    reference: str
    version: Version | None
    metrics: Metrics


def entry(path: Path) -> Entry:
    """Return a file's figures. Raises UserError where it can't be read, or mixes the versions."""
    annotations = read_annotations(path)
    found = versions_of(annotations)
    if len(found) > 1:
        raise UserError(f"{path} mixes AlpacaEval's versions (reference {annotations[0].generator_1}): they are apart")
    return Entry(
        model=annotations[0].generator_2 or path.stem,
        reference=annotations[0].generator_1,
        version=found.pop() if found else None,
        metrics=figures(annotations),
    )


def entries(paths: Sequence[Path]) -> list[Entry]:
    """Return the files' figures. Raises UserError where they are of different versions or references."""
    found = [entry(path) for path in paths]
    if len(of := {(one.version, one.reference) for one in found}) > 1:
        told = sorted(f"AlpacaEval {version or '?'} against {name or '?'}" for version, name in of)
        raise UserError(f"these are not comparable: {', '.join(told)}; give files of one version at a time")
    return found


def show(found: Sequence[Entry]) -> None:
    """Print the figures, best first, with the paper's rows where they are comparable."""
    console, version = to_screen(), found[0].version
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("from", "win rate", "standard error", "wins", "draws", "average length", "judged"):
        table.add_column(name, justify="right" if name != "from" else "left", no_wrap=True)
    rows = [(one.metrics.get("win_rate", -1.0), 0, _own(one)) for one in found]
    if version == 1:
        rows += [(one.win_rate, 1, _paper(one)) for one in TABLE_1]
    # As printed: a model's own row stands right above the paper's of the same figure.
    for _, _, cells in sorted(rows, key=lambda row: (-round(row[0], 2), row[1])):
        table.add_row(*cells)
    name = f"AlpacaEval {version}, against {REFERENCE[version]}" if version else "AlpacaEval of an unknown version"
    console.print(f"{name}; win rate and standard error in percent, length in characters", markup=False)
    console.print(table)
    if version != 1:
        console.print("the paper's table 1 is version 1: its rows are not comparable, and left out", markup=False)
    for one in found:
        if left := unjudged(one.metrics):
            console.print(f"{one.model}: no preference: {left}", markup=False)


def _own(one: Entry) -> tuple[str, ...]:
    metrics = one.metrics
    rates = [f"{metrics[name]:.2f}" if name in metrics else "-" for name in ("win_rate", "win_rate_stderr")]
    counts = [str(metrics.get(name, "-")) for name in ("wins", "draws", "avg_length")]
    return (one.model, "annotations", *rates, *counts, f"{metrics['judged']} of {metrics['asked']}")


def _paper(one: Published) -> tuple[str, ...]:
    rates = (f"{one.win_rate:.2f}", f"{one.standard_error:.2f}")
    return (one.model, "the paper", *rates, str(one.wins), str(one.draws), str(one.avg_length), "")
