"""The tables of a study, from what its runs left in the store: README.md, results.csv, results.json, figures.

    srecycle-study table experiments/ablation

Between the marks <!-- results --> and <!-- /results --> of the study's README.md stand its tables; results.csv has a
line a run with its metrics and store keys, results.json the tables' figures, NAME.svg the figures. What was not run yet
is told as that. With --small, or with parameters of your own, nothing of the study's is touched: the tables are
printed, and --out FOLDER takes the files.
"""

import argparse
import csv
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.drawing import svg
from srecycle.store import write_json
from srecycle.study import claims, reviews, tables
from srecycle.study.outcomes import Outcomes, read_outcomes, record
from srecycle.study.plan import Plan, read_plan
from srecycle.study.tables import NOT_RUN, Asked, Made, asked

KINDS: Mapping[str, Callable[[Asked], Made]] = {
    "accuracy": tables.accuracy,
    "contrasts": tables.contrasts,
    "metrics": tables.metrics,
    "auc": tables.seen,
    "optimum": claims.optimum,
    "again": claims.again,
    "surface": claims.surface,
    "pilot": claims.pilot,
    "reviews": reviews.orders,
    "annotations": reviews.annotations,
}
README = "README.md"
_WRITTEN = (README, "results.csv", "results.json")
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    choose(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the study's own folder)")


def choose(parser: argparse.ArgumentParser) -> None:
    """Declare what chooses a study's runs."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="a study: a folder with study.toml")
    parser.add_argument("--small", action="store_true", help="its preset of at most ten minutes")
    parser.add_argument(
        "--with", dest="given", nargs="+", default=[], metavar="NAME=VALUE", help="parameters of the study, as rows=100"
    )
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store"))


def chosen(options: argparse.Namespace) -> Plan:
    """Return the plan that is chosen. Raises UserError where it can't be read."""
    if wrong := [one for one in options.given if "=" not in one]:
        raise UserError(
            f"--with {wrong[0]} should be NAME=VALUE, a parameter of the study's {options.folder}/study.toml"
        )
    given = {name: value for name, _, value in (one.partition("=") for one in options.given)}
    return read_plan(options.folder.expanduser(), small=options.small, given=given)


def run(options: argparse.Namespace) -> None:
    """Make the tables, print them, and write them."""
    plan = chosen(options)
    outcomes = read_outcomes(plan, options.store.expanduser().absolute())
    made = made_tables(outcomes)
    own = not (options.small or options.given)
    folder = options.out.expanduser() if options.out else plan.folder if own else None
    text = markdown(outcomes, made)
    print(text)  # noqa: T201
    if folder is None:
        say(f"{plan.name}: nothing is written; --out FOLDER takes these tables")
        return
    write(outcomes, made, text, folder)


def made_tables(outcomes: Outcomes) -> list[Made]:
    """Return the tables that the plan asks for. Raises UserError where one is of no known kind."""
    made = []
    for spec in outcomes.plan.tables:
        if outcomes.plan.small and spec.get("blocks") and not set(spec["blocks"]) & tables.blocks_of(outcomes):
            continue
        if spec.get("kind") not in KINDS:
            raise UserError(f"{outcomes.plan.folder}: the table kind {spec.get('kind')} is none of {', '.join(KINDS)}")
        made.append(KINDS[str(spec["kind"])](asked(outcomes, spec)))
    return made


def markdown(outcomes: Outcomes, made: list[Made]) -> str:
    """Return the block: what was run, and every table with its note and figure."""
    if outcomes.plan.jobs and not outcomes.runs:
        return f"{NOT_RUN.capitalize()}."
    parts = [_state(outcomes)] if outcomes.plan.jobs else []
    for one in made:
        if all(cell in (NOT_RUN, "-") for row in one.rows for cell in row[1:]) and not one.values:
            parts += [f"**{one.title}**", f"{NOT_RUN.capitalize()}."]
            continue
        head = f"| {' | '.join(_cell(text) for text in one.heads)} |\n|{'---|' * len(one.heads)}"
        rows = [f"| {' | '.join(map(_cell, row))} |" for row in one.rows]
        lines = [f"**{one.title}**", "\n".join([head, *rows]), one.note.strip()]
        lines.append(f"![{one.chart.title}]({one.chart.name}.svg)" if one.chart else "")
        parts += [line for line in lines if line]
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "/") or " "


def _state(outcomes: Outcomes) -> str:
    done = {line.cell.job for line in outcomes.lines if line.run}
    every = len(outcomes.plan.jobs)
    told = [f"{len(done)} of {every} runs, {outcomes.trainings} different trainings."]
    if len({line.of("seed") for line in outcomes.lines if line.run}) == 1:
        told.append("One seed: intervals and p-values are of its test items alone.")
    seconds = {line.cell.job: line.result for line in outcomes.lines if line.run and line.result}
    if seconds:
        minutes = sum(one.cpu_seconds for one in seconds.values()) / 60
        ends = [line.run.id[:8] for line in outcomes.lines if line.run]
        told.append(f"{minutes:.0f} minutes of one core; from {_date(min(ends))} to {_date(max(ends))}.")
    failed = {line.cell.job: line.reason for line in outcomes.lines if line.result and line.result.status == "failed"}
    if failed:
        told.append(f"{len(failed)} failed, the first: {next(iter(failed.values()))}")
    if outcomes.mixed_revisions:
        told.append(
            f"Code changed between runs ({'; '.join(outcomes.mixed_revisions)}): not comparable, run them again."
        )
    return " ".join(told)


def _date(stamp: str) -> str:
    return f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"


def write(outcomes: Outcomes, made: list[Made], text: str, folder: Path) -> None:
    """Write the files. Raises UserError where the README has no marks, or the folder can't be written."""
    plan = outcomes.plan
    readme = (plan.folder / README).read_text(encoding="utf-8") if (plan.folder / README).is_file() else ""
    if not _BLOCK.search(readme):
        raise UserError(f"{plan.folder / README} has no marks <!-- results --> and <!-- /results -->: put them in")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        filled = _BLOCK.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", readme, count=1)
        (folder / README).write_text(filled, encoding="utf-8")
        if outcomes.runs:
            _write_csv(outcomes, folder / "results.csv")
        values: dict[str, Any] = {one.title: [dict(value) for value in one.values] for one in made if one.values}
        if values:
            write_json(folder / "results.json", {"study": plan.name, "figures": values})
        for chart in (one.chart for one in made if one.chart):
            (folder / f"{chart.name}.svg").write_text(svg(chart), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; give a folder that can be written") from error
    say(f"{plan.name}: {', '.join(str(file) for file in sorted(folder.iterdir()) if file.name in _WRITTEN)}")


def _write_csv(outcomes: Outcomes, file: Path) -> None:
    factors = list(dict.fromkeys(name for cell in outcomes.plan.cells for name in cell.factors))
    lines = [record(line, factors) for line in outcomes.lines]
    names = list(dict.fromkeys(name for line in lines for name in line))
    first = [name for name in names if "/" not in name]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*first, *sorted(set(names) - set(first))], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
