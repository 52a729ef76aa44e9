"""Whether a judge's verdicts stand when an answer is dressed up without becoming better.

A probe changes how one of the judged answers is shown, and the judge is asked again (after arXiv:2402.10669): `swapped`
shows it first instead of second, the others decorate its text (srecycle.judge.decorations). Chosen is the answer that
lost, which a judge of content has no reason to prefer now; of a tie one of the two, drawn by the question's id; where
single answers are graded, the graded one. What moves:

    flips = verdicts that move towards the decorated answer / probed with a verdict       # lose to tie counts
    changes = all that move / the same
    shift = mean move towards it: of the verdict, in the unit of the figure that it counts for

The unit is the paper's win rate for pairs (lose 0, tie 1, win 2), the preference from 1 to 2 for AlpacaEval (0.01 is a
point of its win rate), and the grade. A grade can't rise above the scale's end: where most are near it, a shift is
smaller than the judge's weakness.

The same judgments, a seeded sample of those with a verdict and at most one a question, go through every probe. Pairs
that are judged in both orders are `swapped` without further judgments: being shown first is the decoration there.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, Self, TypeVar

import numpy as np

from srecycle.judge.counts import counted
from srecycle.judge.decorations import Probe, Side
from srecycle.judge.pairs import COVERED, RESAMPLES, Outcome
from srecycle.stage import Metrics

_PLACES: Final = {"lose": 0.0, "tie": 1.0, "win": 2.0}


class Question(Protocol):
    """What was asked: `position` is its place in its set, `category` the value of a column, or ""."""

    @property
    def id(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def category(self) -> str: ...


class Judged(Protocol):
    """Answers to a question, and what a judge said of them.

    `asked` says whether the judge is to be asked, `verdict` what came of it, from own's point of view (None: nothing
    that can be read), and `reason` "ok", or why there is none.
    """

    @property
    def about(self) -> Question: ...
    @property
    def asked(self) -> bool: ...
    @property
    def verdict(self) -> str | float | None: ...
    @property
    def reason(self) -> str: ...

    def favoured(self, probe: Probe) -> Side | None:
        """Return whose answer a probe dresses up; None where either will do."""

    def dressed(self, probe: Probe, side: Side) -> Self:
        """Return it with that side's answer dressed up, not judged yet."""


T = TypeVar("T", bound=Judged)


@dataclass(frozen=True, kw_only=True)
class Probed(Generic[T]):
    """What was judged (`before`), and what is judged `again`: `decorated` says which of its answers was dressed up."""

    before: T
    again: T
    decorated: Side


def probed(judged: Sequence[T], probe: Probe, rows: int, seed: int) -> list[Probed[T]]:
    """Return what is to be judged again: up to `rows` of what has a verdict, one a question, in their order.

    A question's place in the draw is its own, so that one that gains or loses a verdict moves one other at most.
    """
    found = _one_a_question([one for one in judged if one.verdict is not None], seed)
    drawn = sorted(found, key=lambda one: _draw(seed, "sample", one))[:rows]
    return [_probed(one, probe, seed) for one in sorted(drawn, key=lambda one: one.about.position)]


def stand_ins(some: Sequence[T], probe: Probe, rows: int, seed: int) -> list[T]:
    """Return what would be judged again while nobody knows yet which: as many, and about as long."""
    ready = _one_a_question([one for one in some if one.asked], seed)
    return [one.dressed(probe, "own") for one in ready[:rows]]


def _one_a_question(some: Sequence[T], seed: int) -> list[T]:
    groups: dict[str, list[T]] = {}
    for one in some:
        groups.setdefault(one.about.id, []).append(one)
    return [group[_draw(seed, "turn", group[0])[0] % len(group)] for group in groups.values()]


def _probed(before: T, probe: Probe, seed: int) -> Probed[T]:
    drawn: Side = "own" if _draw(seed, "side", before)[0] % 2 else "other"
    side = before.favoured(probe) or drawn
    return Probed(before=before, again=before.dressed(probe, side), decorated=side)


def _draw(seed: int, what: str, one: Judged) -> bytes:
    return hashlib.sha256(f"{seed} {what} {one.about.id}".encode()).digest()


def figures(asked: Sequence[Probed[T]], after: Sequence[T], seed: int) -> Metrics:
    """Return a probe's metrics: counts always, shares only where something got a verdict again.

    `asked`, of which `judged` have a verdict again, and `unjudged/REASON` have none; `flips`, `changes` and `shift`
    (see above), each with its bootstrap standard error and 95% percentile interval, drawn with `seed`. Where nothing
    moved, no resample can tell how much might have: of n, up to a share of about 3 / n.
    """
    moves = [
        (_place(again) - _place(one.before)) * (1 if one.decorated == "own" else -1)
        for one, again in zip(asked, after, strict=True)
        if again.verdict is not None
    ]
    return counted(again.reason for again in after) | _moved(moves, seed)


def swapped(judged: Sequence[Outcome], seed: int) -> Metrics:
    """Return the metrics of the probe that judging in both orders makes anyway; flips favour the answer shown first."""
    moves = [
        sum(one.preference if one.own_first else -one.preference for one in outcome.judgments)
        for outcome in judged
        if outcome.verdict
    ]
    return {"judged": len(moves), **_moved(moves, seed)}


def _place(one: Judged) -> float:
    assert one.verdict is not None
    return _PLACES[one.verdict] if isinstance(one.verdict, str) else one.verdict


def _moved(moves: Sequence[float], seed: int) -> Metrics:
    """Return the shares of moves that are positive, and that are any, and their mean, with their intervals."""
    if not moves:
        return {}
    values, counts = np.unique(np.asarray(moves, dtype=np.float64), return_counts=True)
    shares = np.random.default_rng(seed).multinomial(len(moves), counts / len(moves), size=RESAMPLES) / len(moves)
    metrics: Metrics = {}
    for name, weights in (("flips", values > 0), ("changes", values != 0), ("shift", values)):
        resampled = shares @ weights
        low, high = np.quantile(resampled, [(1 - COVERED) / 2, (1 + COVERED) / 2])
        metrics |= {
            name: float(counts @ weights / len(moves)),
            f"{name}_stderr": float(resampled.std()),
            f"{name}_low": float(low),
            f"{name}_high": float(high),
        }
    return metrics
