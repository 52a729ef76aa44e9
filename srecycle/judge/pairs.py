"""Two answers to one question, judged in both orders, and what follows: the paper's win, tie or lose, and its win rate.

The judge scores both answers twice, once with each of them shown first. The signs of own - other in both orders are
added up: own wins where the sum is positive, loses where it is negative, and ties at 0 (arXiv:2402.10110, section 4):

    win rate = (win - lose) / judged + 1                                  # 0 to 2; 1 is as good as the other

A pair that lacks a readable judgment in one of the orders has no verdict, and the reason why not.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from srecycle.judge.base import Case, said
from srecycle.judge.counts import counted
from srecycle.judge.decorations import DECORATIONS, Probe, Side
from srecycle.judge.parsing import Scored, read_pair
from srecycle.judge.wording import messages
from srecycle.rows import OK
from srecycle.stage import Metrics
from srecycle.teacher import Reply

Verdict = Literal["win", "tie", "lose"]
VERDICTS: tuple[Verdict, ...] = ("win", "tie", "lose")

RESAMPLES: Final = 10_000
COVERED: Final = 0.95
"""What bootstrap intervals are made of, and which share of the resamples they cover."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one question; verdicts are from the point of view of `own`.

    `status` is "ok", or why it can't be judged (there is no answer, for example). `category` is the question's, or "".
    """

    id: str
    position: int
    question: str
    own: str
    other: str
    category: str = ""
    status: str = OK


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """One order's judgment. `own_first` says which answer was shown first; `reply` is the judge's, as it came."""

    case: Case
    own_first: bool
    reply: Reply
    scored: Scored

    @property
    def preference(self) -> int:
        """The sign of own's score less the other's. Only where there are scores."""
        first, second = self.scored.scores
        sign = (first > second) - (first < second)
        return sign if self.own_first else -sign


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a pair: its judgments (own first, then other first; none where it wasn't judged)."""

    pair: Pair
    judgments: tuple[Judgment, ...] = ()

    @property
    def about(self) -> Pair:
        """Return the question, as the pair knows it."""
        return self.pair

    @property
    def asked(self) -> bool:
        """Whether there are two answers to judge, and nobody has."""
        return self.pair.status == OK and not self.judgments

    @property
    def reason(self) -> str:
        """Return "ok", or why there is no verdict."""
        statuses = (self.pair.status, *(one.scored.status for one in self.judgments))
        return next((status for status in statuses if status != OK), OK)

    @cached_property
    def verdict(self) -> Verdict | None:
        """Who won, by the rule above; None where a judgment is missing."""
        if self.reason != OK or not self.judgments:
            return None
        total = sum(one.preference for one in self.judgments)
        return "win" if total > 0 else "lose" if total < 0 else "tie"

    @property
    def agrees(self) -> bool | None:
        """Whether both orders prefer the same answer (or neither); None where there is no verdict."""
        return None if self.verdict is None else len({one.preference for one in self.judgments}) == 1

    def favoured(self, probe: Probe) -> Side | None:
        """Return whose answer lost; None of a tie."""
        lost: Mapping[str | None, Side] = {"win": "other", "lose": "own"}
        return lost.get(self.verdict)

    def dressed(self, probe: Probe, side: Side) -> "Outcome":
        """Return the pair with that side's answer decorated, not judged yet."""
        pair, decorate = self.pair, DECORATIONS[probe]
        return Outcome(
            pair=replace(pair, own=decorate(pair.own)) if side == "own" else replace(pair, other=decorate(pair.other))
        )


def cases(pairs: Sequence[Pair], system: str, request: str) -> list[Case]:
    """Return the cases of the pairs that can be judged: two each, own answer first and then the other one."""
    return [
        _case(pair, system, request, own_first) for pair in pairs if pair.status == OK for own_first in (True, False)
    ]


def outcomes(pairs: Sequence[Pair], asked: Sequence[Case], replies: Sequence[Reply]) -> list[Outcome]:
    """Read the replies to the pairs' cases, and return one outcome a pair."""
    given = iter(zip(asked, replies, strict=True))
    return [
        Outcome(pair=pair, judgments=tuple(_judgment(*next(given), own_first) for own_first in (True, False)))
        if pair.status == OK
        else Outcome(pair=pair)
        for pair in pairs
    ]


def _case(pair: Pair, system: str, request: str, own_first: bool) -> Case:
    first, second = (pair.own, pair.other) if own_first else (pair.other, pair.own)
    texts = {"question": pair.question, "answer_1": first, "answer_2": second}
    return Case(
        id=pair.id,
        position=pair.position,
        question=pair.question,
        answers=(first, second),
        messages=messages(system, request, texts),
    )


def _judgment(case: Case, reply: Reply, own_first: bool) -> Judgment:
    scored = read_pair(reply.text, reply.finish_reason) if reply.status == OK else Scored(status=reply.status)
    return Judgment(case=case, own_first=own_first, reply=reply, scored=scored)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Wins, ties and losses."""

    win: int = 0
    tie: int = 0
    lose: int = 0

    @property
    def judged(self) -> int:
        """All of them."""
        return self.win + self.tie + self.lose

    @property
    def win_rate(self) -> float | None:
        """(win - lose) / judged + 1, from 0 to 2; None where nothing was judged."""
        return (self.win - self.lose) / self.judged + 1 if self.judged else None

    def resampled(self, seed: int) -> npt.NDArray[np.float64]:
        """Return the win rates of bootstrap resamples, each as many verdicts drawn from these with replacement."""
        counts = np.array([self.win, self.tie, self.lose])
        drawn = np.random.default_rng(seed).multinomial(self.judged, counts / self.judged, size=RESAMPLES)
        return np.asarray((drawn[:, 0] - drawn[:, 2]) / self.judged + 1, dtype=np.float64)


def tally(judged: Sequence[Outcome]) -> Tally:
    """Count the verdicts."""
    found = Counter(one.verdict for one in judged)
    return Tally(win=found["win"], tie=found["tie"], lose=found["lose"])


def figures(judged: Sequence[Outcome], seed: int) -> Metrics:
    """Return the metrics of some pairs: counts always, figures only where there is something to count.

    `asked` pairs, of which `judged` have a verdict, and `unjudged/REASON` have none. `win_rate` with its bootstrap
    standard error and 95% percentile interval (`win_rate_low`, `win_rate_high`), drawn with `seed`. `agreement` is the
    share of verdicts on which both orders agree, and `first_preferred` how often, of the judgments that prefer an
    answer, it is the one shown first (0.5: the judge doesn't mind). Lengths are mean characters of the answers that won
    and that lost, and of both sides' answers among the judged.
    """
    found = tally(judged)
    verdicts = {verdict: getattr(found, verdict) for verdict in VERDICTS}
    return counted(one.reason for one in judged) | verdicts | win_rate(found, seed) | _means(judged)


def win_rate(found: Tally, seed: int) -> Metrics:
    """Return the win rate with its bootstrap standard error and interval; nothing where nothing was judged."""
    if not found.judged:
        return {}
    rates = found.resampled(seed)
    low, high = np.quantile(rates, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return {
        "win_rate": found.win_rate,
        "win_rate_stderr": float(rates.std()),
        "win_rate_low": float(low),
        "win_rate_high": float(high),
    }


def _means(judged: Sequence[Outcome]) -> Metrics:
    decided = [one for one in judged if one.verdict is not None]
    own_won = [(one.pair, one.verdict == "win") for one in decided if one.verdict != "tie"]
    shown_first = [
        one.preference == (1 if one.own_first else -1) for two in decided for one in two.judgments if one.preference
    ]
    means: dict[str, Sequence[float]] = {
        "agreement": [bool(one.agrees) for one in decided],
        "first_preferred": shown_first,
        "length/own": [len(one.pair.own) for one in decided],
        "length/other": [len(one.pair.other) for one in decided],
        "length/winners": [len(pair.own if won else pair.other) for pair, won in own_won],
        "length/losers": [len(pair.other if won else pair.own) for pair, won in own_won],
    }
    return {name: float(np.mean(values)) for name, values in means.items() if values}


def lines(judged: Sequence[Outcome], **named: Any) -> list[Mapping[str, Any]]:
    """Return a line for each judgment, and one for each pair without any, for `judgments.parquet`.

    Answers stand as they were shown, and the reply as it came: such a table is a recording that judge=replay reads.
    """
    written: list[Mapping[str, Any]] = []
    for one in judged:
        about = {**named, "id": one.pair.id, "position": one.pair.position, "category": one.pair.category}
        about |= {"question": one.pair.question, "verdict": one.verdict, "reason": one.reason}
        if not one.judgments:
            first, second = one.pair.own, one.pair.other
            written.append(about | _line(True, first, second, Scored(status=one.pair.status), None))
        for judgment in one.judgments:
            first, second = judgment.case.answers
            written.append(about | _line(judgment.own_first, first, second, judgment.scored, judgment.reply))
    return written


def _line(own_first: bool, first: str, second: str, scored: Scored, reply: Reply | None) -> dict[str, Any]:
    return {
        "own_first": own_first,
        "answer_1": first,
        "answer_2": second,
        "status": scored.status,
        "score_1": scored.scores[0] if scored.scores else None,
        "score_2": scored.scores[1] if scored.scores else None,
        **said(reply),
    }
