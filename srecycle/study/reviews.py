"""What recorded verdicts say of their judges: tables of `[[tables]]` with kind `reviews` and `annotations`.

In: files of recorded reviews (two answers scored in both orders) or of AlpacaEval's annotations, in the folder that
$SRECYCLE_REVIEWS names. Nobody is asked. Out: how often a verdict moves when the answers change places, and how often
the longer answer wins, or the one with more lists and emphasis. The first is a probe; the others are what was observed:
a longer answer may also be the better one.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srecycle.errors import UserError
from srecycle.judge.__main__ import judged
from srecycle.judge.annotations import DRAW, read_annotations
from srecycle.judge.pairs import COVERED, RESAMPLES, figures
from srecycle.judge.probes import swapped
from srecycle.study.tables import Asked, Made

FOLDER = "SRECYCLE_REVIEWS"
_SEED = 0
_MARKUP = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s|\*\*|^#+ ", re.MULTILINE)
_MOVES = {"flips": "moves to the first shown", "changes": "moves at all"}
_ALIKE = 1.1
"""Answers whose lengths differ by less than this factor count as equally long."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A pair with a winner: its texts in that order."""

    won: str
    lost: str


def orders(wanted: Asked) -> Made:
    """Return, for each file of reviews, the paper's counts and how its judge minds order, length and markup."""
    rows, values = [], list[Mapping[str, Any]]()
    for name, path in _files(wanted):
        found = judged(path)
        told, moved = figures(found, _SEED), swapped(found, _SEED)
        pairs = [
            Decided(won=one.pair.own, lost=one.pair.other)
            if one.verdict == "win"
            else Decided(won=one.pair.other, lost=one.pair.own)
            for one in found
            if one.verdict in ("win", "lose")
        ]
        rows.append(
            [
                name,
                f"{told['judged']} of {told['asked']}",
                f"{told['win']} / {told['tie']} / {told['lose']}",
                f"{told['agreement']:.0%}",
                f"{told['first_preferred']:.0%}",
                *(f"{moved[one]:.1%} ({moved[f'{one}_low']:.1%} to {moved[f'{one}_high']:.1%})" for one in _MOVES),
                *_preferred(pairs),
            ]
        )
        values.append({"file": name, **told, **{f"swapped/{key}": value for key, value in moved.items()}})
    heads = ["reviews", "judged", "win / tie / lose", "orders agree", "first is preferred", *_MOVES.values()]
    return _table(wanted, heads, rows, values)


def annotations(wanted: Asked) -> Made:
    """Return, for each file of annotations, the win rate and how its judge minds length and markup."""
    rows, values = [], list[Mapping[str, Any]]()
    for name, path in _files(wanted):
        found = [one for one in read_annotations(path) if one.preference is not None]
        pairs = [
            Decided(won=one.output_2, lost=one.output_1)
            if (one.preference or 0) > DRAW
            else Decided(won=one.output_1, lost=one.output_2)
            for one in found
            if one.preference != DRAW
        ]
        rate = float(np.mean([(one.preference or 0) - 1 for one in found]))
        rows.append([name, str(len(found)), f"{rate:.1%}", *_preferred(pairs)])
        values.append({"file": name, "judged": len(found), "win_rate": rate})
    return _table(wanted, ["annotations", "judged", "win rate"], rows, values)


def _table(wanted: Asked, heads: Sequence[str], rows: list[list[str]], values: Sequence[Mapping[str, Any]]) -> Made:
    return Made(
        title=str(wanted.spec["title"]),
        heads=[*heads, "the longer wins", "... of alike lengths, the one with more markup wins"],
        rows=rows,
        note=str(wanted.spec.get("note", "")),
        values=values,
    )


def _files(wanted: Asked) -> list[tuple[str, Path]]:
    folder = os.environ.get(FOLDER)
    if not folder:
        raise UserError(
            f"{FOLDER} is not set: name the folder that holds {', '.join(wanted.spec['files'])} (the recorded reviews "
            "and annotations that were published with the paper's models)"
        )
    return [(Path(name).stem, Path(folder).expanduser() / name) for name in wanted.spec["files"]]


def _preferred(pairs: Sequence[Decided]) -> list[str]:
    """Return how often the longer answer won, and the one with more markup where lengths are alike."""
    longer = [len(one.won) > len(one.lost) for one in pairs if not _alike(one)]
    markup = [(_marks(one.won), _marks(one.lost)) for one in pairs if _alike(one)]
    return [_share(longer), _share([won > lost for won, lost in markup if won != lost])]


def _alike(one: Decided) -> bool:
    short, long = sorted((len(one.won), len(one.lost)))
    return long <= _ALIKE * max(short, 1)


def _marks(text: str) -> int:
    return len(_MARKUP.findall(text))


def _share(found: Sequence[bool]) -> str:
    """Write a share with its bootstrap interval, and of how many."""
    if not found:
        return "-"
    drawn = np.random.default_rng(_SEED).binomial(len(found), float(np.mean(found)), RESAMPLES) / len(found)
    low, high = np.quantile(drawn, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return f"{np.mean(found):.0%} ({low:.0%} to {high:.0%}) of {len(found)}"
