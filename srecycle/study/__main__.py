"""The command `srecycle-study`: one subcommand a study, each a module with `arguments` and `run`.

Users' mistakes end in one line on standard error and exit code 2.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.study import export, matrix, publish, released, report, run, stability, surface, table


class Command(Protocol):
    """A study's module. The first line of its docstring is what the command's help says of it."""

    __doc__: str | None

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what the command is given."""

    def run(self, options: argparse.Namespace) -> None:
        """Do it. Raises UserError where it can't be done."""


COMMANDS: Mapping[str, Command] = {
    "surface": surface,
    "matrix": matrix,
    "stability": stability,
    "export": export,
    "publish": publish,
    "released": released,
    "run": run,
    "table": table,
    "report": report,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a study, and return the exit code."""
    given = _parser().parse_args(arguments)
    command = COMMANDS[given.command]
    parser = argparse.ArgumentParser(
        prog=f"srecycle-study {given.command}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.arguments(parser)
    try:
        command.run(parser.parse_intermixed_args(given.arguments))
    except UserError as error:
        say(f"srecycle-study: error: {' '.join(str(error).split())}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    told = "\n".join(f"  {name:10} {_first_line(command)}" for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="srecycle-study",
        description=f"Studies of what was made already:\n\n{told}",
        epilog="srecycle-study COMMAND --help says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", metavar="COMMAND", choices=list(COMMANDS), help=", ".join(COMMANDS))
    parser.add_argument("arguments", metavar="...", nargs=argparse.REMAINDER, help="what the command is given")
    return parser


def _first_line(command: Command) -> str:
    return (command.__doc__ or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
