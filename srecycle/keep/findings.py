"""What filters have in common that read a rewrite's texts: each names what it finds, and refuses or only counts it.

Nothing here asks a model. Patterns miss things and raise false alarms: `action: flag` keeps the rows, so that a finding
can be counted before it is let decide.
"""

import re
import weakref
from abc import ABC, abstractmethod
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from srecycle.config import component, fingerprint, identity
from srecycle.keep.base import Chosen, Keep, Reasons

RowFlags = npt.NDArray[np.bool_]

_found: Final[dict[int, dict[str, dict[str, RowFlags]]]] = {}
"""What was found in the rows that are alive, by their `id` and the filter's fingerprint."""


@component
class Findings(Keep, ABC):
    """Looks for faults in what was taken. `action: refuse` refuses a row for its first finding, `flag` only counts."""

    action: Literal["refuse", "flag"] = "refuse"

    @abstractmethod
    def found(self, chosen: Chosen) -> dict[str, RowFlags]:
        """Read the texts: return which rows show what, by name, in order of precedence, shape [rows] each."""

    def findings(self, chosen: Chosen) -> dict[str, RowFlags]:
        """Return what `found` does, refused or not. The same rows are read once: their arrays are not to be changed."""
        if id(chosen) not in _found:
            _found[id(chosen)] = {}
            # An id is given again once its object is gone.
            weakref.finalize(chosen, _found.pop, id(chosen))
        known, name = _found[id(chosen)], fingerprint(identity(self))
        if name not in known:
            known[name] = self.found(chosen)
        return known[name]

    def reasons(self, chosen: Chosen) -> Reasons:
        """Refuse rows by their first finding, unless findings are only to be counted."""
        told = np.full(len(chosen.version), "", dtype=object)
        if self.action == "refuse":
            for name, found in reversed(self.findings(chosen).items()):
                told[found] = name
        return told


def marked(found: list[set[str]], names: tuple[str, ...]) -> dict[str, RowFlags]:
    """Return each row's findings as one column a name."""
    return {name: np.array([name in one for one in found], dtype=bool) for name in names}


_WORD = re.compile(r"[^\W\d_]++")
# Words that say nothing about what a text is about, so that they can't tell whether one speaks of the same as another.
FUNCTION_WORDS: Final = frozenset(
    _WORD.findall(
        """a about above after again all also am an and any are as at be because been before being below between both
        but by can could did do does doing down during each else ever few for from further get give given had has have
        having he her here hers him his how i if in into is it its itself just like made make many may me might more
        most much must my no nor not of off on once only or other our out over own per same she should so some such than
        that the their them then there these they this those through to too under until up upon us use used using very
        via was we were what when where which while who whom whose why will with within without would you your"""
    )
)


def content_words(text: str) -> set[str]:
    """Return the words that a text is about, casefolded, a plural's "s" removed."""
    words = {word.casefold() for word in _WORD.findall(text)}
    return {singular(word) for word in words - FUNCTION_WORDS if len(word) > 2}


def singular(word: str) -> str:
    """Return a casefolded word without a plural's "s". Both sides of a comparison lose it, so "gas" does no harm."""
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
