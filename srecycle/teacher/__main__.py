"""The command `srecycle-ledger`: what was paid, and replies carried from one store to another.

Users' mistakes end in one line on standard error and exit code 2; an import that refused lines ends in 1.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.store import Store
from srecycle.teacher.exchange import export_replies, import_replies
from srecycle.teacher.ledger import Ledger

_WIDTH_WHERE_PIPED = 160

_COSTS = """
SELECT provider, model, sum(calls) AS calls, sum(imported) AS imported, sum(input) AS input, sum(output) AS output,
    sum(reasoning) AS reasoning, sum(usd) AS usd, sum(failures) AS failures, sum(lost) AS lost
FROM (
    SELECT provider, model, count(*) AS calls, sum(imported) AS imported, sum(input_tokens) AS input,
        sum(output_tokens) AS output, sum(reasoning_tokens) AS reasoning, total(usd * (1 - imported)) AS usd,
        0 AS failures, 0 AS lost
    FROM replies GROUP BY provider, model
    UNION ALL
    SELECT provider, model, 0, 0, 0, 0, 0, 0, count(*), total(usd) FROM failures GROUP BY provider, model
)
GROUP BY provider, model ORDER BY provider, model
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.go(options))
    except UserError as error:
        say(f"srecycle-ledger: error: {' '.join(str(error).split())}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srecycle-ledger", description="The ledger of a store: every paid reply, its tokens and its price."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    default = Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store")
    for name, go, about in (
        ("show", _show, "print calls, tokens, dollars and failures by provider and model"),
        ("export", _export, "write every reply to a file of JSON Lines"),
        ("import", _import, "read such a file in: known replies stand, lines whose key is wrong are refused"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        if name != "show":
            command.add_argument("file", metavar="FILE.jsonl", type=Path)
        command.add_argument("store", metavar="STORE", nargs="?", type=Path, default=default, help="now: %(default)s")
        command.set_defaults(go=go)
    return parser


def _show(options: argparse.Namespace) -> int:
    table = Table(box=None)
    for name in ("provider", "model"):
        table.add_column(name)
    names = ("replies", "imported", "input tokens", "output tokens", "reasoning", "dollars", "failures", "dollars lost")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    with _ledger(options.store) as ledger:
        for line in ledger.rows(_COSTS):
            provider, model, *counts, usd, failures, lost = line.values()
            table.add_row(provider, model, *map(str, counts), f"{usd:.4f}", str(failures), f"{lost:.4f}")
    console = Console()
    # Figures that don't fit must not be cut: a file or a pipe has any width.
    (console if console.is_terminal else Console(width=_WIDTH_WHERE_PIPED)).print(table)
    return 0


def _export(options: argparse.Namespace) -> int:
    with _ledger(options.store) as ledger:
        count = export_replies(ledger, options.file.expanduser())
    say(f"{count} replies written to {options.file}")
    return 0


def _import(options: argparse.Namespace) -> int:
    with Ledger(Store(options.store).root / "ledger.sqlite") as ledger:
        done = import_replies(ledger, options.file.expanduser())
    cut = "; its last line is cut, and was left out" if done.torn else ""
    say(f"{options.file}: {done.new} replies are new, {done.known} were known, {done.refused} lines refused{cut}")
    return 1 if done.refused else 0


def _ledger(store: Path) -> Ledger:
    path = store.expanduser() / "ledger.sqlite"
    if not path.is_file():
        raise UserError(f"{store} has no ledger: give a STORE, or set SRECYCLE_STORE")
    return Ledger(path)


if __name__ == "__main__":
    sys.exit(main())
