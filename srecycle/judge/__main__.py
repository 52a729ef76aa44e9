"""The command `srecycle-judge`, which asks no judge.

    srecycle-judge reviews FILE...                                      the paper's counts from recorded reviews
    srecycle-judge alpaca_eval ANNOTATIONS...                           AlpacaEval's figures beside the paper's table 1
    srecycle-judge sheet RUN_A RUN_B --prompts FILE --out FOLDER        a blinded sheet for people
    srecycle-judge analyse KEY SHEET...                                 what they made of it

Users' mistakes end in one line on standard error and exit code 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from srecycle.errors import UserError
from srecycle.evaluator.opponents import sides
from srecycle.evaluator.prompts import read_prompts
from srecycle.judge import leaderboard
from srecycle.judge.counts import unjudged
from srecycle.judge.decorations import SWAPPED
from srecycle.judge.labels import analysed, read_sheet
from srecycle.judge.pairs import Outcome, Pair, cases, figures, outcomes
from srecycle.judge.probes import swapped
from srecycle.judge.replay import ReplayJudge, recorded_pairs
from srecycle.judge.screen import show, to_screen
from srecycle.judge.sheet import KEY, read_key, write_sheets
from srecycle.progress import say
from srecycle.reflection.quote import ledger_of
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.store import Store

_SEED = 0
_WORDING = "{question}\n{answer_1}\n{answer_2}"
"""Nobody reads it: a recording is found by its texts."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        say(f"srecycle-judge: error: {' '.join(str(error).split())}")
        return 2
    return 0


def _reviews(options: argparse.Namespace) -> None:
    _show({path: _figures(judged(path.expanduser())) for path in options.file})


def _alpaca_eval(options: argparse.Namespace) -> None:
    leaderboard.show(leaderboard.entries([path.expanduser() for path in options.file]))


def _sheet(options: argparse.Namespace) -> None:
    """Write the sheets of two sides' answers to a file of prompts."""
    prompts = read_prompts(options.prompts.expanduser())
    if any(len(prompt.turns) > 1 for prompt in prompts):
        raise UserError(f"the prompts of {options.prompts} have several turns: people compare one answer each")
    own, other = sides(options.own, options.other, Store(options.store.expanduser(), create=False), prompts)
    pairs = [
        Pair(
            id=prompt.id,
            position=prompt.position,
            question=prompt.question,
            own=own.get(prompt.id, ""),
            other=other.get(prompt.id, ""),
            status=OK if prompt.id in own and prompt.id in other else "no_answer",
        )
        for prompt in prompts
    ]
    names, folder = (options.own, options.other), options.out.expanduser()
    files = write_sheets(pairs, names, folder, rows=options.rows, annotators=options.annotators, seed=options.seed)
    if without := sum(pair.status != OK for pair in pairs):
        say(f"{without} of {len(pairs)} prompts lack an answer of one side, and were left out of the draw")
    for file in files:
        say(f"{file}{': keep it from the annotators' if file.name == KEY else ''}")


def _analyse(options: argparse.Namespace) -> None:
    """Print what the sheets say, and write it where a file is named."""
    key = read_key(options.key.expanduser())
    sheets = [read_sheet(path.expanduser(), key) for path in options.sheet]
    analysis = analysed(sheets, key, options.seed)
    if options.json is not None:
        told = {"own": key.own, "other": key.other, "metrics": analysis.metrics, "unknown": analysis.unknown}
        rows = [
            {"row": row, "id": identifier, "verdict": analysis.verdicts[row]}
            | {"labels": {sheet.name: sheet.verdicts.get(row) for sheet in sheets}}
            for row, identifier in key.rows.items()
        ]
        try:
            options.json.expanduser().write_text(json.dumps(told | {"rows": rows}, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{options.json} can't be written: {error.strerror or error}") from error
    show(key, sheets, analysis)


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
    reviews.set_defaults(run=_reviews)
    about = "print win rate, standard error, wins, draws and average length of AlpacaEval's annotations"
    alpaca = commands.add_parser("alpaca_eval", help=about, description=about)
    alpaca.add_argument("file", metavar="ANNOTATIONS", nargs="+", type=Path)
    alpaca.set_defaults(run=_alpaca_eval)
    _add_sheet(commands)
    _add_analyse(commands)
    return parser


def _add_sheet(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "write a blinded sheet for each annotator, answers in random order, and a key that names them"
    sheet = commands.add_parser("sheet", help=about, description=about)
    store = Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store")
    side = "a run's id or name, or a file of answers (.json, .jsonl, .parquet)"
    sheet.add_argument("own", metavar="RUN_A", help=f"{side}; wins and losses are told of it")
    sheet.add_argument("other", metavar="RUN_B", help=side)
    sheet.add_argument("--prompts", type=Path, required=True, help="the file of the prompts that both answered")
    sheet.add_argument("--out", type=Path, required=True, help="a new folder")
    sheet.add_argument("--rows", type=int, help="how many prompts, drawn at random (default: all)")
    sheet.add_argument("--annotators", type=int, default=3, choices=range(1, 100), metavar="N", help="sheets (3)")
    sheet.add_argument("--seed", type=_seed, default=0, help="of the draw and of the order of answers (0)")
    sheet.add_argument("--store", type=Path, default=store, help="where runs are (now: %(default)s)")
    sheet.set_defaults(run=_sheet)


def _add_analyse(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "tell the majority's wins, ties and losses of labelled sheets, the win rate, and the annotators' agreement"
    analyse = commands.add_parser("analyse", help=about, description=about)
    analyse.add_argument("key", metavar="KEY", type=Path, help="key.json of the sheets' folder")
    analyse.add_argument("sheet", metavar="SHEET", nargs="+", type=Path, help="labelled sheets (CSV), one an annotator")
    analyse.add_argument("--json", type=Path, help="also write the figures and every row's labels to this file")
    analyse.add_argument("--seed", type=_seed, default=0, help="of the bootstrap interval (0)")
    analyse.set_defaults(run=_analyse)


def _seed(written: str) -> int:
    if (seed := int(written)) < 0:
        raise argparse.ArgumentTypeError(f"{seed} is negative: expected a whole number from 0")
    return seed


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
    console = to_screen()
    console.print(table)
    for path, metrics in told.items():
        if left := unjudged(metrics):
            console.print(f"{path.name}: no verdict: {left}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
