"""What people made of a blinded sheet, on the screen: the result on standard output, each label that is none beside."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from srecycle.judge.labels import Analysis, Sheet, agreements
from srecycle.judge.pairs import VERDICTS
from srecycle.judge.sheet import Key
from srecycle.progress import say

_WIDTH_WHERE_PIPED = 160


def to_screen() -> Console:
    """Return standard output: as wide as the terminal, or wide enough for a table where it is piped."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHERE_PIPED)


def show(key: Key, sheets: Sequence[Sheet], analysis: Analysis) -> None:
    """Print the majority's verdicts, the win rate, the agreement, and what each annotator's sheet holds."""
    console, metrics = to_screen(), analysis.metrics
    console.print(f"{key.own} against {key.other}: {metrics['rows']} rows, {len(sheets)} annotators", markup=False)
    table = _table("majority", "judged", *VERDICTS, "win rate", "95% interval")
    interval = f"{metrics['win_rate_low']:.3f} to {metrics['win_rate_high']:.3f}" if metrics["judged"] else "-"
    rate = f"{metrics['win_rate']:.3f}" if metrics["judged"] else "-"
    table.add_row("", str(metrics["judged"]), *(str(metrics[name]) for name in VERDICTS), rate, interval)
    console.print(table)
    for name, count in metrics.items():
        if name.startswith("unjudged/"):
            console.print(f"no verdict: {count} {name.partition('/')[2].replace('_', ' ')}")
    console.print(_of_sheets(sheets))
    console.print(_of_agreement(sheets, analysis))
    for name, reason in analysis.unknown.items():
        console.print(f"{name}: not told, {reason}")
    for sheet in sheets:
        for problem in sheet.problems:
            say(problem)


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _of_sheets(sheets: Sequence[Sheet]) -> Table:
    table = _table("sheet", "labels", *VERDICTS, "missing", "invalid")
    for sheet in sheets:
        labels = list(sheet.verdicts.values())
        counts = (len(labels), *(labels.count(name) for name in VERDICTS), sheet.missing, sheet.invalid)
        table.add_row(sheet.name, *map(str, counts))
    return table


def _of_agreement(sheets: Sequence[Sheet], analysis: Analysis) -> Table:
    table = _table("agreement", "rows", "share")
    for (first, second), (both, equal) in agreements(sheets).items():
        table.add_row(f"{first} and {second}", str(both), f"{equal / both:.1%}" if both else "-")
    named = {"agreement": "all pairs of labels", "unanimous": "rows on which all agree"}
    for name, words in named.items():
        if name in analysis.metrics:
            table.add_row(words, "", f"{analysis.metrics[name]:.1%}")
    for level in ("nominal", "ordinal"):
        if (alpha := analysis.metrics.get(f"alpha_{level}")) is not None:
            table.add_row(f"Krippendorff's alpha, {level}", "", f"{alpha:.3f}")
    return table
