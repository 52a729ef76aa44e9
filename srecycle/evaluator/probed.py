"""Judged pairs put before the same judge again, one of the answers dressed up (srecycle.judge.probes).

In: a set's outcomes. Out: for each probe what was asked again and what came of it, as metrics `probe/NAME/...` and as
lines for `probes.parquet`. A judge that has no judgments of decorated answers (a recording) gives its reason, counted
as `probe/NAME/unjudged/not_recorded`, and no figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srecycle.judge import Case, probes
from srecycle.judge.base import Ask
from srecycle.judge.pairs import Outcome, Pair, cases, lines, outcomes
from srecycle.progress import say
from srecycle.stage import Metrics


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a probe asked, and the outcome of each."""

    probe: probes.Probe
    asked: Sequence[probes.Probed]
    after: Sequence[Outcome]

    def lines(self, **named: Any) -> list[Mapping[str, Any]]:
        """Return the lines of srecycle.judge.pairs.lines, with the probe, the decorated side and the verdict before."""
        return [
            {**line, "probe": self.probe, "decorated": one.decorated, "before": one.before.verdict}
            for one, outcome in zip(self.asked, self.after, strict=True)
            for line in lines([outcome], **named)
        ]


@dataclass(frozen=True, kw_only=True)
class Probing:
    """Which probes ask how many pairs of a set again, drawn with `seed`, in the wording of their first judgment."""

    probes: Sequence[probes.Probe]
    rows: int
    seed: int
    system: str
    request: str

    def again(self, name: str, judged: Sequence[Outcome], ask: Ask) -> list[Again]:
        """Ask the judge again about a set. Raises UserError where it can't go on."""
        found = []
        for probe in self.probes:
            asked = probes.probed(judged, probe, self.rows, self.seed)
            shown = self._cases([one.pair for one in asked])
            after = outcomes([one.pair for one in asked], shown, ask(shown, f"judging {name} again, {probe}"))
            found.append(Again(probe=probe, asked=asked, after=after))
            _tell(name, found[-1], self.seed)
        return found

    def cases(self, judged: Sequence[Outcome]) -> list[Case]:
        """Return what `again` will ask about a set that is judged."""
        asked = [probes.probed(judged, probe, self.rows, self.seed) for probe in self.probes]
        return self._cases([one.pair for some in asked for one in some])

    def likely_cases(self, pairs: Sequence[Pair]) -> list[Case]:
        """Return cases as many and about as long, for a set whose verdicts aren't known yet."""
        return self._cases([one for probe in self.probes for one in probes.stand_ins(pairs, probe, self.rows)])

    def metrics(self, judged: Sequence[Outcome], found: Sequence[Again]) -> Metrics:
        """Return the figures of the orders, which cost nothing, and those of the probes."""
        told = {probes.SWAPPED: probes.swapped(judged, self.seed)}
        for probe in self.probes:
            some = [one for one in found if one.probe == probe]
            asked = [one for again in some for one in again.asked]
            told[probe] = probes.figures(asked, [one for again in some for one in again.after], self.seed)
        return {f"probe/{probe}/{what}": value for probe, figures in told.items() for what, value in figures.items()}

    def _cases(self, pairs: Sequence[Pair]) -> list[Case]:
        return cases(pairs, self.system, self.request)


def _tell(name: str, again: Again, seed: int) -> None:
    found = probes.figures(again.asked, again.after, seed)
    left = {what.partition("/")[2]: count for what, count in found.items() if what.startswith("unjudged/")}
    without = f"; no verdict: {', '.join(f'{count} {why}' for why, count in left.items())}" if left else ""
    shares = f"{found['flips']:.1%} flip towards it, {found['changes']:.1%} change" if found["judged"] else "no figure"
    say(f"  {name}, probe {again.probe}: {shares} ({found['judged']} judged of {found['asked']} asked){without}")
