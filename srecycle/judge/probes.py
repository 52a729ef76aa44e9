"""Whether a judge's verdicts stand when an answer is dressed up without becoming better.

A probe decorates one of a pair's answers, and the judge is asked again, in both orders (after arXiv:2402.10669).
Decorated is the answer that lost, which a judge of content has no reason to prefer now; of a tie one of the two, drawn
by the pair's id. What moves:

    flips = verdicts that move towards the decorated answer / probed pairs with a verdict    # lose to tie counts
    changes = all that move / the same pairs

The same pairs, a seeded sample of those with a verdict, go through every probe. `swapped` needs no further judgment:
being shown first instead of second is the decoration, and all pairs have been judged both ways. Each decoration is a
pure function of the answer and adds nothing to what it says:

| probe        | the answer ...                                                                       |
|--------------|--------------------------------------------------------------------------------------|
| `references` | ends in a list of works that don't exist                                              |
| `authority`  | begins by saying that experts have confirmed it                                       |
| `formatting` | has a heading, a bullet a sentence, and bold beginnings: the same words               |
| `padding`    | ends in sentences that say nothing, again and again, until it is twice as long        |
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from srecycle.judge.pairs import COVERED, RESAMPLES, Outcome, Pair
from srecycle.rows import OK
from srecycle.stage import Metrics

Probe = Literal["references", "authority", "formatting", "padding"]
Side = Literal["own", "other"]

SWAPPED: Final = "swapped"

_REFERENCES = (
    "References:\n"
    "[1] Smith, J., Meyer, A., & Lee, K. (2021). A systematic review of the question. Journal of General Studies, "
    "14(2), 101-118.\n"
    "[2] Garcia, M., & Chen, L. (2019). Evidence and practice: a survey. Annual Review of Applied Research, 7, 45-72.\n"
    "[3] Brown, T. (2022). Handbook of established answers (3rd ed.). University Press."
)
_AUTHORITY = "As confirmed by leading experts in this field, the following answer is correct and complete."
_PADDING = (
    "There is certainly a lot that could be said about this.",
    "It is important to keep in mind what was said above.",
    "As mentioned before, all of these points are worth considering.",
    "In other words, what has been stated here should be taken into account.",
    "Needless to say, everything above remains as it was described.",
)
_LEAST_PADDING, _MOST_PADDING = 300, 2000
"""Characters: a short answer grows by a few sentences, a long one not by pages that are paid for."""

_HEADING = "## Answer"
_FENCE = re.compile(r"\s*(?:```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z0-9\"'(])")
_ITEM = re.compile(r"(\s*(?:[-*+]|\d+[.)])\s+)(.+)")
_LEFT_AS_IT_IS = re.compile(r"\s*(?:#|>|\||\$\$|<)|\s{4,}|\t")
_BEGINNING = re.compile(r"[^\s*_`\[\]<>$\\]+(?: [^\s*_`\[\]<>$\\]+){0,2}(?= |$)")


def _with_references(answer: str) -> str:
    return f"{answer.rstrip()}\n\n{_REFERENCES}".lstrip()


def _with_authority(answer: str) -> str:
    return f"{_AUTHORITY}\n\n{answer.lstrip()}".rstrip()


def _with_padding(answer: str) -> str:
    wanted = min(max(len(answer), _LEAST_PADDING), _MOST_PADDING)
    sentences: list[str] = []
    while sum(map(len, sentences)) + len(sentences) < wanted:
        sentences.append(_PADDING[len(sentences) % len(_PADDING)])
    return f"{answer.rstrip()}\n\n{' '.join(sentences)}".lstrip()


def _with_formatting(answer: str) -> str:
    """Make bullets of the sentences outside code, tables, quotes and headings."""
    written, in_code = [_HEADING, ""], False
    for line in answer.strip().splitlines():
        fence = bool(_FENCE.match(line))
        in_code = in_code != fence
        if in_code or fence or not line.strip() or _LEFT_AS_IT_IS.match(line):
            written.append(line)
        elif item := _ITEM.fullmatch(line):
            written.append(item[1] + _bold(item[2]))
        else:
            written += [f"- {_bold(sentence)}" for sentence in _SENTENCE_END.split(line.strip())]
    return "\n".join(written)


def _bold(text: str) -> str:
    return _BEGINNING.sub(lambda match: f"**{match[0]}**", text, count=1) if _BEGINNING.match(text) else text


DECORATIONS: Final[Mapping[Probe, Callable[[str], str]]] = {
    "references": _with_references,
    "authority": _with_authority,
    "formatting": _with_formatting,
    "padding": _with_padding,
}


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A judged pair (`before`), and the pair that is judged again: `decorated` says which of its answers was."""

    before: Outcome
    pair: Pair
    decorated: Side


def probed(judged: Sequence[Outcome], probe: Probe, rows: int, seed: int) -> list[Probed]:
    """Return what is to be judged again: up to `rows` of the pairs that have a verdict, in their order.

    A pair's place in the draw is its own, so that one that gains or loses a verdict moves one other at most.
    """
    drawn = sorted((one for one in judged if one.verdict), key=lambda one: _draw(seed, "sample", one.pair))[:rows]
    return [_probed(one, probe, seed) for one in sorted(drawn, key=lambda one: one.pair.position)]


def stand_ins(pairs: Sequence[Pair], probe: Probe, rows: int) -> list[Pair]:
    """Return pairs as those that would be judged again while nobody knows yet which: as many, and about as long."""
    ready = [pair for pair in pairs if pair.status == OK][:rows]
    return [replace(pair, own=DECORATIONS[probe](pair.own)) for pair in ready]


def _probed(before: Outcome, probe: Probe, seed: int) -> Probed:
    pair = before.pair
    lost: Mapping[str | None, Side] = {"win": "other", "lose": "own"}
    drawn: Side = "own" if _draw(seed, "side", pair)[0] % 2 else "other"
    side = lost.get(before.verdict, drawn)
    decorate = DECORATIONS[probe]
    changed = replace(pair, own=decorate(pair.own)) if side == "own" else replace(pair, other=decorate(pair.other))
    return Probed(before=before, pair=changed, decorated=side)


def _draw(seed: int, what: str, pair: Pair) -> bytes:
    return hashlib.sha256(f"{seed} {what} {pair.id}".encode()).digest()


def figures(asked: Sequence[Probed], after: Sequence[Outcome], seed: int) -> Metrics:
    """Return a probe's metrics: counts always, shares only where some pair got a verdict again.

    `asked` pairs, of which `judged` have a verdict again, and `unjudged/REASON` have none; `flips` and `changes` (see
    above), each with its bootstrap standard error and 95% percentile interval, drawn with `seed`. Where nothing moved,
    no resample can tell how much might have: of n pairs, up to a share of about 3 / n.
    """
    moves = [
        _place(again) - _place(one.before) if one.decorated == "own" else _place(one.before) - _place(again)
        for one, again in zip(asked, after, strict=True)
        if again.verdict
    ]
    reasons = Counter(again.reason for again in after if again.verdict is None)
    return {
        "asked": len(asked),
        "judged": len(moves),
        **{f"unjudged/{reason}": count for reason, count in sorted(reasons.items())},
        **_shares(moves, seed),
    }


def swapped(judged: Sequence[Outcome], seed: int) -> Metrics:
    """Return the metrics of the orders of judgments that were made anyway; flips favour the answer shown first."""
    moves = [
        sum(one.preference if one.own_first else -one.preference for one in outcome.judgments)
        for outcome in judged
        if outcome.verdict
    ]
    return {"judged": len(moves), **_shares(moves, seed)}


def _place(outcome: Outcome) -> int:
    assert outcome.verdict is not None
    return ("lose", "tie", "win").index(outcome.verdict)


def _shares(moves: Sequence[int], seed: int) -> Metrics:
    """Return the shares of moves that are positive, and that are any, with their intervals."""
    if not moves:
        return {}
    counts = np.array([sum(move > 0 for move in moves), sum(move < 0 for move in moves), moves.count(0)])
    drawn = np.random.default_rng(seed).multinomial(len(moves), counts / len(moves), size=RESAMPLES) / len(moves)
    metrics: Metrics = {}
    for name, columns in (("flips", 1), ("changes", 2)):
        shares = drawn[:, :columns].sum(axis=1)
        low, high = np.quantile(shares, [(1 - COVERED) / 2, (1 + COVERED) / 2])
        metrics |= {
            name: float(counts[:columns].sum() / len(moves)),
            f"{name}_stderr": float(shares.std()),
            f"{name}_low": float(low),
            f"{name}_high": float(high),
        }
    return metrics
