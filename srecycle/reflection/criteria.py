"""The scores that a teacher gives its criteria: one line each in the critique, `[Score] name: 7`, from 1 to 10.

A score that is missing, out of range or no number is absent, and never a number.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from srecycle.rows import CriterionScore

LOWEST: Final = 1.0
HIGHEST: Final = 10.0
_LINE = re.compile(
    r"^[#>*_ \t]*+(?:(?:\d{1,2}[.)]|[-+\u2022])[ \t]++)?[*_]*+\\?\[[ \t]*+Score[ \t]*+\\?\](.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_VALUE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)(?:\s*(?:/|out of)\s*10)?\.?", re.IGNORECASE)
_MARKS = " \t\r*_`\"'<>"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The usable scores in the order of the criteria, and how many score lines were not usable."""

    given: tuple[CriterionScore, ...]
    malformed: int


def scores(critique: str, criteria: Sequence[str]) -> Scores:
    """Read the score lines of these criteria. Where one is scored twice, the later line counts."""
    if not criteria:
        return Scores(given=(), malformed=0)
    names = {_plain(name): name for name in criteria}
    found: dict[str, float] = {}
    malformed = 0
    for line in _LINE.findall(critique):
        said, _, value = line.strip(_MARKS + ":").rpartition(":")
        match = _VALUE.fullmatch(value.strip(_MARKS))
        name = names.get(_plain(said))
        if name is None or match is None or not LOWEST <= float(match[1]) <= HIGHEST:
            malformed += 1
        else:
            found[name] = float(match[1])
    given = tuple(CriterionScore(name=name, score=found[name]) for name in dict.fromkeys(criteria) if name in found)
    return Scores(given=given, malformed=malformed)


def _plain(name: str) -> str:
    return " ".join(name.strip(_MARKS + ".").casefold().split())
