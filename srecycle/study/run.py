"""Run a study: every run of its plan that the store doesn't have, and then its tables.

    srecycle-study run experiments/ablation --jobs 2

--small is the study's preset of at most ten minutes, --with rows=100 another value of a parameter. Stop it at any time:
the same command goes on. What fails is told, and stops nothing else; it is tried again by the next call.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.study import table
from srecycle.study.drive import Driver, failures
from srecycle.study.jobs import Place
from srecycle.study.plan import Plan


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    table.arguments(parser)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once (default 1)")
    parser.add_argument("--blocks", nargs="+", metavar="NAME", help="these parts of the study alone (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="list the runs as commands, and run nothing")


def run(options: argparse.Namespace) -> None:
    """Run what is missing, and make the tables. Raises UserError where a run failed: the others are made."""
    plan = _part(table.chosen(options), options.blocks)
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs} should be at least 1")
    if options.dry_run:
        for job in plan.jobs.values():
            print(shlex.join(["srecycle", *job.overrides]))  # noqa: T201
        say(f"{plan.name}: {len(plan.jobs)} runs, about {plan.minutes:g} minutes on two cores")
        return
    place = Place(store=options.store.expanduser().absolute(), name=plan.name)
    driver = Driver(plan=plan, place=place, at_once=options.jobs)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        driver.run()
    except KeyboardInterrupt:
        say(f"{plan.name}: interrupted; the same command goes on where it stopped")
        sys.exit(130)
    table.run(options)
    failed = failures(plan, driver.results)
    for label, reason in failed.items():
        say(f"  failed {label}: {reason}")
    if failed:
        raise UserError(
            f"{len(failed)} of {len(plan.jobs)} runs failed, the others are made: the command again tries them"
        )


def _part(plan: Plan, blocks: Sequence[str] | None) -> Plan:
    """Return the plan with the jobs of these blocks alone. Raises UserError where it has no such block."""
    known = list(dict.fromkeys(cell.block for cell in plan.cells))
    if unknown := [name for name in blocks or () if name not in known]:
        raise UserError(f"--blocks {unknown[0]}: {plan.name} has no such block; there are: {', '.join(known)}")
    wanted = {cell.job for cell in plan.cells if not blocks or cell.block in blocks}
    return replace(plan, jobs={name: job for name, job in plan.jobs.items() if name in wanted})
