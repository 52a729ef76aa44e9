"""What the section of one run shows: its stages and counts, its metrics, its own settings, and the decision browser."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from srecycle.config import flattened
from srecycle.report.comparison import Entry
from srecycle.report.decisions import LONGEST, Case, cases
from srecycle.report.runs import Run

_MOST_CASES, _ALL_CASES = 20, 240
"""Sampled rows a run, and in the whole report: a sweep of a hundred runs must still open in a browser."""

_MOST_LETTERS = 1_600_000
"""How much of the page sampled rows may take, in characters of HTML."""

_MOST_LISTED = 1_200_000
"""And how much all runs' lists of their metrics and own settings, in characters of HTML."""

_MARKUP = 90
"""About how many characters a line of settings takes besides its text."""

_MANY = 60
"""With more runs than this, stages are told in a line, counts stand among the metrics only, and tokens are fewer."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Counts by reason, most frequent first, with the total that shares refer to."""

    title: str
    counts: Sequence[tuple[str, int]]
    total: int


@dataclass(frozen=True, kw_only=True)
class Details:
    """What the section of one run shows. `cases` are HTML; `left_out` says that there was no room for any.

    `heat` says whether any of them has the losses of its tokens; `more_settings` are settings that had no room.
    """

    entry: Entry
    tallies: Sequence[Tally]
    cases: Sequence[Markup]
    left_out: bool
    heat: bool
    outcomes: Sequence[str]
    reasons: Sequence[str]
    config: Sequence[tuple[str, str]]
    more_settings: int
    metrics: str
    more_metrics: int
    brief: bool


def details(found: Sequence[Entry], written: Callable[[Case], Markup]) -> Iterator[Details]:
    """Yield the details of every run. `written` makes a case into HTML: its length says how many there is room for."""
    runs = len(found)
    room, share, listed = _MOST_LETTERS, _MOST_LETTERS // max(runs, 1), _MOST_LISTED // max(runs, 1)
    common = dict(shared_settings([entry.run for entry in found]))
    most, longest = max(2, min(_MOST_CASES, _ALL_CASES // max(runs, 1))), max(300, min(LONGEST, 80_000 // max(runs, 1)))
    for entry in found:
        sampled = cases(entry.run, most, longest=longest) if room > 0 else []
        sampled = [_lighter(case) for case in sampled] if runs > _MANY else sampled
        html = _fitting(map(written, sampled), share)
        shown = sampled[: len(html)]
        room -= sum(map(len, html))
        own = [(name, value) for name, value in _settings(entry.run).items() if name not in common]
        config = _listed(own, [_MARKUP + len(name) + len(value) for name, value in own], listed // 2)
        lines = [f"{name}  {_written(value)}" for name, value in sorted(entry.run.metrics.items())]
        metrics = _listed(lines, [1 + len(line) for line in lines], listed // 2)
        yield Details(
            entry=entry,
            tallies=list(_tallies(entry.run)) if runs <= _MANY else [],
            cases=html,
            left_out=room <= 0 and not sampled,
            heat=any(version.tokens for case in shown for version in case.versions),
            outcomes=list(dict.fromkeys(case.outcome for case in shown)),
            reasons=list(dict.fromkeys(reason for case in shown for reason in case.reasons)),
            config=config,
            more_settings=len(own) - len(config),
            metrics="\n".join(metrics),
            more_metrics=len(lines) - len(metrics),
            brief=runs > _MANY,
        )


def shared_settings(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return the settings that all of several runs have alike, sorted by name; of a single run none are shared."""
    if len(runs) < 2:
        return []
    first, *others = (_settings(run) for run in runs)
    return [(name, value) for name, value in first.items() if all(one.get(name) == value for one in others)]


def _settings(run: Run) -> dict[str, str]:
    flat = flattened(dict(run.config))
    return {name: str(flat[name]) for name in sorted(flat)}


_TALLIES: Mapping[str, str] = {
    "reflect_instruction/instruction/": "Replies on the instruction",
    "select_instruction/reason/": "Decisions on the instruction",
    "reflect_response/response/": "Replies on the original's response",
    "reflect_response/both/": "Replies on the new instruction's response",
    "select_response/reason/": "Decisions on the response",
    "assemble/refused/": "Refused by the keep filters",
    "train/refused/": "Refused by the trainer",
    "train/no_pair/": "No preference pair",
    "train/refused_pairs/": "Pairs refused by the trainer",
}


def _tallies(run: Run) -> Iterator[Tally]:
    for prefix, title in _TALLIES.items():
        counts = {
            name.removeprefix(prefix): int(value)
            for name, value in run.metrics.items()
            if name.startswith(prefix) and isinstance(value, int)
        }
        if counts:
            ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            total = max(int(run.metrics.get("assemble/rows", 0)), sum(counts.values()))
            yield Tally(title=title, counts=ordered, total=total)


def _lighter(case: Case) -> Case:
    """Leave the tokens to the original and to what was taken: they are most of a page's elements."""
    versions = [one if one.taken or one.version == "original" else replace(one, tokens=()) for one in case.versions]
    return replace(case, versions=versions)


def _fitting(written: Iterable[Markup], room: int) -> list[Markup]:
    """Return the first ones, as many as there is room for, and one in any case."""
    fitting = list[Markup]()
    for one in written:
        if fitting and sum(map(len, fitting)) + len(one) > room:
            break
        fitting.append(one)
    return fitting


def _listed(lines: Sequence[Any], sizes: Sequence[int], room: int) -> list[Any]:
    """Return the first lines, as many as there is room for."""
    return [line for line, taken in zip(lines, accumulate(sizes), strict=True) if taken <= room]


def _written(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
