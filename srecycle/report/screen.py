"""Tables on the screen: what a plan would do, and how runs compare. Standard output, so that they can be piped."""

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srecycle.report.runs import USD, Figure, Run, evaluations, labels, teacher_requests

if TYPE_CHECKING:
    from srecycle.reflection.quote import Quote
    from srecycle.runner import PlannedStage

_SHOWN_DIFFERENCES = 4
_DIFFERENCE_WIDTH = 90
_WIDTH_WHERE_PIPED = 160
_MOST_FIGURES = 5
_NAME = 40


def show_runs(runs: Sequence[Run]) -> None:
    """Print one line a run: evaluation figures with standard errors, rows kept, teacher requests, seconds."""
    names, hidden = _shown(runs)[:_MOST_FIGURES], max(len(_shown(runs)) - _MOST_FIGURES, 0)
    table = Table(title="Runs (value ± standard error)", title_justify="left", box=box.SIMPLE, pad_edge=False)
    named = labels(runs)
    widest = max((len(name) for name in named.values()), default=0) + len(" (finished)")
    table.add_column("run", overflow="fold", min_width=min(widest, _NAME))
    for name in names:
        table.add_column(_short(name, names), justify="right", no_wrap=True)
    paid = any(run.metrics.get(USD) for run in runs)
    for name in ("kept", "requests", *(["$"] if paid else []), "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        figures = evaluations(run)
        cells = [_cell(figures.get(name)) for name in names]
        kept = run.metrics.get("assemble/kept", "-") if run.metrics.get("train/rows") != 0 else "-"  # 0: untuned
        status = "" if run.status == "finished" else f" ({run.status})"
        dollars = [f"{run.metrics.get(USD, 0.0):.2f}"] if paid else []
        counts = (str(kept), str(teacher_requests(run)), *dollars, f"{run.seconds:.1f}")
        table.add_row(escape(named[run.id] + status), *cells, *counts)
    _console().print(table)
    if hidden:
        _console().print(f"{hidden} more figures stand in the report")


def show_plan(stages: Sequence["PlannedStage"]) -> None:
    """Print one line a stage: its key, and whether it is there; for the others, what differs from the nearest one."""
    table = Table(title="Plan", title_justify="left")
    for name in ("stage", "key", "would", "changed since the nearest one in the store"):
        table.add_column(name)
    for stage in stages:
        table.add_row(stage.label, stage.key[:12], stage.how, escape("\n".join(_differences(stage.changed))))
    console = _console()
    console.print(table)
    bills: dict[str, list[Quote]] = {}
    for stage in stages:
        if stage.quote is not None:
            who = f"The judge of {stage.label}" if stage.stage == "evaluate" else "The teacher"
            bills.setdefault(who, []).append(stage.quote)
    for who, quotes in bills.items():
        console.print(_bill(who, quotes), markup=False)


def _bill(who: str, quotes: Sequence["Quote"]) -> str:
    """Word what asking the teacher, or a judge, would cost, and on what that estimate rests."""
    calls, found = sum(one.calls for one in quotes), sum(one.found for one in quotes)
    if not calls:
        return f"{who} would be asked {found:,} times, none of which is paid for now."
    words = [
        f"{who} would be sent {calls:,} paid requests ({found:,} more cost nothing): about "
        f"{sum(one.input_tokens for one in quotes):,} tokens in and {sum(one.output_tokens for one in quotes):,} out, "
        f"about ${sum(one.usd for one in quotes):,.2f} at the configured prices, and "
        f"{sum(one.minutes for one in quotes):,.0f} minutes."
    ]
    if reasks := sum(one.reasks for one in quotes):
        words.append(
            f"Should every reply have to be asked for again: {reasks:,} more, "
            f"${sum(one.usd_at_most for one in quotes):,.2f} in all."
        )
    if estimated := sum(one.estimated for one in quotes):
        words.append(f"{estimated:,} requests show texts that are still to be written, taken to be of a usual length.")
    if assumed := dict.fromkeys(prior for one in quotes for prior in one.assumed):
        words.append(f"Assumed, since the ledger holds nothing of it: {', '.join(assumed)}.")
    return " ".join(words)


def _differences(changed: Sequence[str]) -> list[str]:
    """Word the differences briefly: own fields first, then the inputs that are new because something before them is."""
    own = [shorten(change, _DIFFERENCE_WIDTH) for change in changed if ".key: " not in change]
    upstream = [change.partition(".key: ")[0].partition(".")[0] for change in changed if ".key: " in change]
    shown = own[:_SHOWN_DIFFERENCES]
    if len(own) > _SHOWN_DIFFERENCES:
        shown.append(f"and {len(own) - _SHOWN_DIFFERENCES} more")
    return shown + ([f"new input: {', '.join(dict.fromkeys(upstream))}"] if upstream else [])


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_WHERE_PIPED)


def _shown(runs: Sequence[Run]) -> list[str]:
    """Return the figures worth a column: those with a standard error, and shares; counts stay in the report."""
    found: dict[str, Figure] = {}
    for run in runs:
        found |= evaluations(run)
    shown = [name for name, figure in found.items() if figure.stderr is not None or name.endswith("_share")]
    # The whole comes before its parts: values of a column, probes.
    return sorted(shown, key=lambda name: (not name.endswith("/mean"), name.endswith("_share"), name.count("/")))


def _short(name: str, names: Sequence[str]) -> str:
    """Leave out leading parts that all columns share."""
    last = name.rpartition("/")[2]
    return last if sum(other.rpartition("/")[2] == last for other in names) == 1 else name


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return _number(figure.value) + (f"±{_number(figure.stderr)}" if figure.stderr is not None else "")


def _number(value: float) -> str:
    """Write a figure without the zero before its point: a row of many shares then fits a terminal."""
    return f"{value:.3f}".replace("0.", ".", 1) if 0 <= value < 1 else f"{value:.3f}"
