"""The command `srecycle-store`: what a store holds, whether it is whole, and what of it no run needs.

Users' mistakes end in one line on standard error and exit code 2; `verify` ends in 1 where something is broken.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from srecycle.digest import fresh_digest
from srecycle.errors import UserError
from srecycle.progress import metered, say
from srecycle.store.artifacts import Store, inspected
from srecycle.store.unneeded import Held, delete, held, unneeded


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if not (options.store.expanduser() / "artifacts").is_dir():
            raise UserError(f"{options.store} is no store of srecycle: give --store PATH, or set SRECYCLE_STORE")
        return int(options.go(Store(options.store, create=False), options))
    except UserError as error:
        say(f"srecycle-store: error: {' '.join(str(error).split())}")
        return 2
    except OSError as error:
        say(f"srecycle-store: error: {error.filename}: {error.strerror}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="srecycle-store", description="Look after a store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    about = "print how many artifacts each stage has, and their sizes; or every artifact of some stages"
    listing = commands.add_parser("list", help=about, description=about)
    listing.add_argument("stages", metavar="STAGE", nargs="*", help="source, likelihoods, train, ...")
    listing.set_defaults(go=_list)
    about = "read every file again, and name those that are not as they were recorded"
    verify = commands.add_parser("verify", help=about, description=about)
    verify.set_defaults(go=_verify)
    about = "print what no run in the store needs; with --delete, delete it"
    collect = commands.add_parser("gc", help=about, description=about)
    collect.add_argument("--days", type=float, default=7, help="leave what is younger alone (default: %(default)g)")
    collect.add_argument("--delete", action="store_true", help="delete what is printed otherwise")
    collect.set_defaults(go=_collect)
    default = Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store")
    for command in (listing, verify, collect):
        command.add_argument("--store", type=Path, default=default, help="default: %(default)s")
    return parser


def _list(store: Store, options: argparse.Namespace) -> int:
    everything = held(store)
    if unknown := set(options.stages) - {one.stage for one in everything}:
        known = ", ".join(dict.fromkeys(one.stage for one in everything))
        raise UserError(f"the store has no artifact of {', '.join(sorted(unknown))}; it has some of {known or 'none'}")
    if options.stages:
        _show([one for one in everything if one.stage in options.stages])
        return 0
    table = _table("stage", "artifacts", "unfinished", "size")
    for stage, ones in groupby(everything, key=attrgetter("stage")):
        group = list(ones)
        unfinished = sum(not one.finished for one in group)
        table.add_row(stage, str(len(group) - unfinished), str(unfinished), decimal(sum(one.size for one in group)))
    table.add_section()
    total = sum(one.size for one in everything)
    unfinished = sum(not one.finished for one in everything)
    table.add_row("all", str(len(everything) - unfinished), str(unfinished), decimal(total))
    Console().print(table)
    runs = len(list((store.root / "runs").glob("*")))
    say(f"{store.root}: {runs} runs")
    return 0


def _verify(store: Store, options: argparse.Namespace) -> int:
    finished = [one for one in held(store) if one.finished]
    broken = list[str]()
    with metered("verifying", len(finished)) as meter:
        for one in finished:
            _, wrong = inspected(one.folder, fresh_digest)
            if wrong:
                broken.append(f"{one.stage} {one.key[:8]}: {wrong}")
            meter.advance(1)
    for line in broken:
        say(line)
    told = f"{len(broken)} broken: running what needs them makes those stages again" if broken else "all whole"
    say(f"{len(finished)} artifacts, {told}")
    return 1 if broken else 0


def _collect(store: Store, options: argparse.Namespace) -> int:
    found = unneeded(store, options.days)
    if not options.delete:
        _show(found)
        size = decimal(sum(one.size for one in found))
        say(f"{len(found)} artifacts that no run needs, {size}; --delete deletes them")
        return 0
    gone = [one for one in found if delete(store, one)]
    busy = f"; {len(found) - len(gone)} are being made just now, and stay" if len(gone) < len(found) else ""
    say(f"{len(gone)} artifacts deleted, {decimal(sum(one.size for one in gone))}{busy}")
    return 0


def _show(ones: Sequence[Held]) -> None:
    table = _table("stage", "key", "written", "size", "")
    for one in ones:
        written = datetime.fromtimestamp(one.changed).astimezone().strftime("%Y-%m-%d %H:%M")
        table.add_row(one.stage, one.key, written, decimal(one.size), "" if one.finished else "unfinished")
    Console().print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


if __name__ == "__main__":
    sys.exit(main())
