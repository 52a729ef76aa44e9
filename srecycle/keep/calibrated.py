"""Calibrated rewrites: a new response must not sound surer than there is reason to be.

Hedges and certainty markers are read off word lists, so this counts wording, not knowledge. An unsure original may be
right to be unsure, and a teacher that answers firmly may know better: count first (`action: flag`), then refuse.
"""

import re
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import ORIGINAL, Chosen
from srecycle.keep.findings import Findings, RowFlags
from srecycle.rows import kind_of
from srecycle.selector.base import missing

# What says that the writer isn't sure. Not "can", "could", "often", "usually": they mostly tell what is the case; nor
# "seems": stories are full of it. "May" in small letters only, for the month's sake; "about" before numbers alone.
_HEDGE = re.compile(
    r"\b(?:may|[Mm]ight|[Pp]erhaps|[Mm]aybe|[Pp]ossibly|[Pp]robably|[Pp]resumably|[Ll]ikely|[Uu]nlikely|[Aa]pparently"
    r"|[Rr]oughly|[Aa]pproximately|[Ee]stimated|[Uu]ncertain|[Uu]nclear|[Uu]nknown|[Dd]ebated|[Dd]isputed|[Aa]llegedly"
    r"|[Ii]t is (?:possible|thought|believed)|[Ii]t (?:seems|appears)|(?:[Aa]bout|[Aa]round)(?= [$\u20ac\u00a3]?\d)"
    r"|I (?:think|believe|guess|suppose)|(?:I am|I'm|I\u2019m|[Nn]ot|[Hh]ard to be) (?:entirely |completely )?sure"
    r"|(?:[Cc]annot|[Cc]an't|[Cc]an\u2019t) be (?:sure|certain)|[Tt]o my knowledge|[Aa]s far as I know)\b"
)
# What says that there is no doubt. Not "clearly" ("label it clearly") and "of course"; "always" and "never" only where
# they foretell or explain ("will always", "always leads to"), since advice, definitions and stories say them too.
_CERTAIN = re.compile(
    r"\b(?:definitely|certainly|undoubtedly|undeniabl[ey]|unquestionabl[ey]|indisputabl[ey]|indubitably|absolutely"
    r"|obviously|guaranteed|guarantees that|without (?:a |any )?doubt|no doubt|beyond (?:any |all )?doubt"
    r"|will (?:always|never)|always (?:works?|leads? to|means?|results? in|causes?)"
    r"|it is (?:a fact|certain|proven)|proven fact|100 ?% (?:sure|certain)|everyone knows)\b",
    re.IGNORECASE,
)


@component
class Calibrated(Findings):
    """Finds responses that lost all hedging of the original, and ones that are surer than the student would be.

    `hedging`: the original response has at least `hedges` hedges and its rewrite none. Only rewrites of the response to
    the original instruction are looked at: another question has another answer. `confidence`: a rewrite has more words
    of certainty than the original response, while the student's perplexity of it is above `uncertain_above`; where that
    perplexity is missing the finding is the reason for that.
    """

    needs: ClassVar[tuple[str, ...]] = ("response", ORIGINAL + "response")

    hedging: bool = True
    hedges: Annotated[int, Field(ge=1)] = 2
    confidence: bool = True
    uncertain_above: Annotated[float, Field(ge=1)] = 10.0

    @property
    def needed(self) -> tuple[str, ...]:
        """The responses and, for confidence, the student's perplexity."""
        return (*self.needs, "perplexity") if self.confidence else self.needs

    def found(self, chosen: Chosen) -> dict[str, RowFlags]:
        """Return which rows lost their hedging, and which are overconfident."""
        kinds = np.array([kind_of(version) for version in chosen.version], dtype=object)
        now, before = chosen.texts["response"], chosen.texts[ORIGINAL + "response"]
        told: dict[str, RowFlags] = {}
        if self.hedging:
            lost = [hedges(old) >= self.hedges and not hedges(new) for new, old in zip(now, before, strict=True)]
            told["hedging_lost"] = np.array(lost, dtype=bool) & (kinds == "response")
        if self.confidence:
            more = [certainties(new) > certainties(old) for new, old in zip(now, before, strict=True)]
            surer = np.array(more, dtype=bool) & (kinds != "original")
            perplexity = chosen.columns["perplexity"]
            told["overconfident"] = surer & (perplexity > self.uncertain_above)
            why = np.array([f"perplexity_{missing(status)}" for status in chosen.score_status], dtype=object)
            unknown = surer & np.isnan(perplexity)
            told |= {reason: unknown & (why == reason) for reason in sorted({*why[unknown]})}
        return told


def hedges(text: str) -> int:
    """Return how often a text hedges."""
    return sum(1 for _ in _HEDGE.finditer(text))


def certainties(text: str) -> int:
    """Return how often a text stresses that it is sure."""
    return sum(1 for _ in _CERTAIN.finditer(text))
