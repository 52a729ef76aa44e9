"""The command `srecycle-report`: compare runs that are in a store already.

Users' mistakes end in one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.html import write_report
from srecycle.report.runs import Run, read_runs, similar, untold
from srecycle.report.screen import show_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison of the chosen runs, write their report, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.to_wandb:
            _to_wandb(options.store.expanduser(), options.run_id)
            return 0
        runs = _chosen(options.store.expanduser(), options.group, options.run_id)
        path = write_report(runs, options.out or options.store.expanduser() / "report.html", paper=options.paper)
    except UserError as error:
        say(f"srecycle-report: error: {' '.join(str(error).split())}")
        return 2
    show_runs(runs)
    if not options.run_id and (left_out := untold(options.store.expanduser())):
        say(f"left out, for they still go on or were killed: {', '.join(left_out[:3])}{_more(len(left_out) - 3)}")
    say(f"report: {path}")
    return 0


def _more(count: int) -> str:
    return f", and {count:,} more" if count > 0 else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srecycle-report",
        description="Compare runs: a table on the screen, and one self-contained HTML file.",
        epilog="Without --group and RUN_ID all finished runs of the store are compared.",
    )
    store = Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store")
    parser.add_argument("run_id", metavar="RUN_ID", nargs="*", help="runs to compare, in this order")
    parser.add_argument("--store", type=Path, default=store, help="the store (now: %(default)s)")
    parser.add_argument("--group", help="compare the runs of this group: a sweep, or what `group=` named")
    parser.add_argument("--paper", action="store_true", help="set the runs beside the paper's tables")
    parser.add_argument(
        "--to-wandb", action="store_true", help="fill W&B from the runs' metrics.jsonl instead, killed runs too"
    )
    parser.add_argument("--out", type=Path, help="where to write the report (default: report.html in the store)")
    return parser


def _to_wandb(store: Path, identifiers: Sequence[str]) -> None:
    """Fill W&B with all runs of the store, or with those that are named. Raises UserError where there are none."""
    from srecycle.tracker.wandb import WandbTracker, to_wandb

    folders = [
        folder for folder in sorted((store / "runs").glob("*/")) if not identifiers or folder.name in identifiers
    ]
    if not folders:
        raise UserError(f"{store} has no such run: give --store PATH, set SRECYCLE_STORE, or look at its folder runs/")
    defaults: dict[str, Any] = {}  # mypy sees no default that `runtime` declares
    for folder, outcome in to_wandb(folders, WandbTracker(**defaults)).items():
        say(f"{folder.name}: {outcome}")


def _chosen(store: Path, group: str | None, identifiers: Sequence[str]) -> list[Run]:
    """Return the runs that were asked for. Raises UserError where there are none, or one isn't known."""
    if not (store / "runs").is_dir():
        raise UserError(f"{store} is no store of srecycle: give --store PATH or set SRECYCLE_STORE")
    runs = read_runs(store, group)
    known = {run.id: run for run in runs}
    for identifier in identifiers:
        if identifier not in known:
            raise UserError(f"{store} has no run {identifier}{similar(identifier, known)}")
    if group is not None and not runs:
        raise UserError(f"{store} has no run of group {group}{similar(group, {run.group for run in read_runs(store)})}")
    if identifiers:
        return [known[identifier] for identifier in dict.fromkeys(identifiers)]
    chosen = runs if group is not None else [run for run in runs if run.status == "finished"]
    if not chosen:
        raise UserError(f"{store} has no finished run")
    return chosen


if __name__ == "__main__":
    sys.exit(main())
