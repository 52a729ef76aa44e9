"""The command `python -m srecycle.judge reviews FILE...`: the paper's counts from recorded reviews, asking nobody.

Users' mistakes end in one line on standard error and exit code 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from srecycle.errors import UserError
from srecycle.judge.pairs import Outcome, cases, figures, outcomes
from srecycle.judge.probes import SWAPPED, swapped
from srecycle.judge.replay import ReplayJudge, recorded_pairs
from srecycle.progress import say
from srecycle.reflection.quote import ledger_of
from srecycle.stage import Metrics

_WIDTH_WHERE_PIPED = 160
_SEED = 0
_WORDING = "{question}\n{answer_1}\n{answer_2}"
"""Nobody reads it: a recording is found by its texts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        told = {path: _figures(judged(path.expanduser())) for path in options.file}
    except UserError as error:
        say(f"srecycle-judge: error: {' '.join(str(error).split())}")
        return 2
    _show(told)
    return 0


def judged(path: Path) -> list[Outcome]:
    """Return the outcome of every pair that a file of recorded reviews holds, answer 1 as own.

    Raises UserError where the file can't be read, or holds other records.
    """
    pairs = recorded_pairs(path)
    asked = cases(pairs, "", _WORDING)
    judge = ReplayJudge(paths=(path,))
    with ledger_of(None) as ledger:
        return outcomes(pairs, asked, judge.replies(asked, ledger))


def _figures(found: Sequence[Outcome]) -> Metrics:
    orders = {f"{SWAPPED}/{name}": value for name, value in swapped(found, _SEED).items()}
    return figures(found, _SEED) | orders


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="srecycle-judge", description="What judges said.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "count wins, ties and losses of answer 1 against answer 2 in recorded reviews, by the paper's rule"
    reviews = commands.add_parser("reviews", help=about, description=about)
    reviews.add_argument("file", metavar="FILE", nargs="+", type=Path)
    return parser


def _show(told: dict[Path, Metrics]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("reviews", overflow="fold")
    for name in (
        "asked",
        "judged",
        "win",
        "tie",
        "lose",
        "win rate",
        "95% interval",
        "orders agree",
        "flip to the first",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for path, metrics in told.items():
        counts = [str(metrics[name]) for name in ("asked", "judged", "win", "tie", "lose")]
        rates = ["-"] * 4
        if metrics["judged"]:
            interval = f"{metrics['win_rate_low']:.3f} to {metrics['win_rate_high']:.3f}"
            low, flips, high = (metrics[f"{SWAPPED}/flips{end}"] for end in ("_low", "", "_high"))
            told_flips = f"{flips:.1%} ({low:.1%} to {high:.1%})"
            rates = [f"{metrics['win_rate']:.3f}", interval, f"{metrics['agreement']:.1%}", told_flips]
        table.add_row(path.name, *counts, *rates)
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHERE_PIPED)
    console.print(table)
    for path, metrics in told.items():
        left = {name.partition("/")[2]: count for name, count in metrics.items() if name.startswith("unjudged/")}
        if left:
            console.print(f"{path.name}: no verdict: {', '.join(f'{count} {why}' for why, count in left.items())}")


if __name__ == "__main__":
    sys.exit(main())
