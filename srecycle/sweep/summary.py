"""What came of a sweep: a table of settings with the metric, best first, and what failed and why."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from srecycle.progress import console, say
from srecycle.sweep.sweep import Result, Sweep


def show(sweep: Sweep) -> None:
    """Print the table, and the failures with their reasons."""
    ranked = _ranked(sweep)
    measured = [one for one in ranked if one.status == "finished"]
    if measured:
        names = list(measured[0].values)
        table = Table(title=f"{sweep.group}: {sweep.file.metric or 'runs'}", title_justify="left")
        for name in names:
            table.add_column(name.lstrip("+"), overflow="fold")
        table.add_column("metric", justify="right")
        table.add_column("run", overflow="fold")
        for one in measured:
            metric = f"{one.metric:.4g}" if one.metric is not None else one.reason or "-"
            table.add_row(*(str(one.values[name]) for name in names), metric, one.run)
        console.print(table, markup=False)
    failed = [one for one in ranked if one.status == "failed"]
    say(f"{sweep.group}: {len(measured)} finished, {len(failed)} failed")
    for one in failed:
        told = ", ".join(f"{name.lstrip('+')}={value}" for name, value in one.values.items())
        say(f"  failed {told}: {one.reason} ({sweep.folder / 'logs' / one.id}.log)")


def write_summary(sweep: Sweep) -> None:
    """Write `summary.csv`, and the report that compares the runs."""
    _write_csv(sweep.folder / "summary.csv", _ranked(sweep))
    if runs := sweep.runs():
        from srecycle.report.html import write_report  # reads tables: not before something ran

        say(f"report: {write_report(runs, sweep.folder / 'report.html')}")


def _ranked(sweep: Sweep) -> list[Result]:
    """Return the results, best metric first; those without one keep their order behind."""
    sign = -1.0 if sweep.file.maximize else 1.0
    return sorted(sweep.outcomes(), key=lambda one: (one.metric is None, sign * (one.metric or 0.0)))


def _write_csv(path: Path, results: Sequence[Result]) -> None:
    names = list(results[0].values) if results else []
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*names, "metric", "status", "run", "seconds", "reason"])
        for one in results:
            metric = "" if one.metric is None else one.metric
            values = [one.values[name] for name in names]
            writer.writerow([*values, metric, one.status, one.run, one.seconds, one.reason])
