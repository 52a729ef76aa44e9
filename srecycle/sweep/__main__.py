"""The command `srecycle-sweep`: run a W&B sweep file here, without an account.

Users' mistakes end in one line on standard error and exit code 2, as does a sweep of which some job failed.
"""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.sweep.file import read_file
from srecycle.sweep.summary import show, write_summary
from srecycle.sweep.sweep import Sweep


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sweep, print what came of it, and return the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    for asked in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal hangs up
        signal.signal(asked, lambda number, frame: sys.exit(128 + number))
    try:
        sweep = Sweep(read_file(options.file), options.overrides, count=options.count, seed=options.seed)
        if options.dry_run:
            for job in sweep.jobs:
                print(shlex.join(["srecycle", *job.overrides]))  # noqa: T201
            return 0
        try:
            sweep.run(at_once=options.jobs, gpus=options.gpus)
        except KeyboardInterrupt:
            say("srecycle-sweep: interrupted; the same command goes on where it stopped")
            return 130
        show(sweep)
        write_summary(sweep)
    except UserError as error:
        say(f"srecycle-sweep: error: {' '.join(str(error).split())}")
        return 2
    return 2 if any(one.status == "failed" for one in sweep.outcomes()) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srecycle-sweep",
        description="Run a W&B sweep file here: every setting is a run of its own, and all are one group. "
        "The same command again does what is missing.",
        epilog="srecycle-sweep sweeps/thresholds.yaml data.count=200 --jobs 2",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a W&B sweep file, or the name of one in sweeps/")
    parser.add_argument(
        "overrides", metavar="OVERRIDES", nargs="*", help="KEY=VALUE for every run, as srecycle takes it"
    )
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="runs at once (now: %(default)s)")
    parser.add_argument("--count", type=_positive, metavar="N", help="settings at most; random and bayes need it")
    parser.add_argument("--seed", type=int, default=0, help="of random and bayes (now: %(default)s)")
    parser.add_argument(
        "--gpus", type=lambda text: text.split(","), default=[], metavar="0,1,...", help="devices, one a run in turn"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the commands, and run nothing")
    return parser


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
