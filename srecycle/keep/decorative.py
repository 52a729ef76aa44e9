"""Decorative rewrites: authority, references and formatting that make a response look better than it is.

Judges and scores favour such ornaments whatever they stand on (arXiv:2402.10669 for references and layout). Nothing
here is looked up: a reference is suspect where the original has none, and nobody asked for any.
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final

from pydantic import Field

from srecycle.config import component
from srecycle.keep.base import ORIGINAL, Chosen
from srecycle.keep.findings import Findings, RowFlags, content_words, marked
from srecycle.rows import kind_of

# Appeals that name nobody. "According to NAME" is a source that can be checked, and is none.
_AUTHORITY = re.compile(
    r"\b(?:(?:studies|research|surveys|experts"
    r"|scientists|researchers|specialists|psychologists|doctors|economists|historians|the science|the evidence)"
    r" (?:have |has |also |consistently |widely |generally |clearly ){0,2}"
    r"(?:shows?|shown|suggests?|suggested|proves?|proven|proved|demonstrates?|demonstrated|confirms?|confirmed|indicates?"
    r"|indicated|found|finds?|agree[sd]?|recommends?|recommended|say|believe|tell us)"
    r"|according to (?:recent |many |several |leading |top |most |the )?(?:studies|research|experts|scientists|surveys"
    r"|researchers|specialists|statistics)|it is (?:well |scientifically )(?:known|established|proven|documented)"
    r"|(?:scientifically|clinically) proven|(?:leading|top|renowned) (?:experts|scientists|researchers))\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"^[ \t]*+(?:```|~~~).*?(?:^[ \t]*+(?:```|~~~)|\Z)|`[^`\n]++`", re.MULTILINE | re.DOTALL)
_REFERENCES: Final = (
    # "[3]" behind a sentence, or set off by a space and followed by its end; lists and indices look otherwise.
    re.compile(
        r"(?:(?<=[a-z][.,;])|(?<=[.\"\u201d][\"\u201d])|(?<=[a-z]) (?=\[[^\]\n]{1,20}\][.,;)]))"
        r"\[[1-9]\d{0,2}(?:[,\u2013-] ?\d{1,3}){0,5}\](?![\w\[(=])"
    ),
    # "(Smith, 2020)"; without a comma it is mostly a date or a title.
    re.compile(
        r"\((?:see |e\.g\.,? |cf\. )?(?!(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6},)[A-Z]"
        r"[\w'\u2019-]{1,30}(?:,? (?:and|&) [A-Z][\w'\u2019-]{1,30}|, [A-Z][\w'\u2019-]{1,30}){0,4}(?: et al\.?)?"
        r", (?:19|20)\d\d[a-z]?(?:, p+\. ?\d{1,5})?\)"
    ),
    re.compile(r"\b[A-Z][\w'\u2019-]{1,30} (?:and|&) [A-Z][\w'\u2019-]{1,30} \((?:19|20)\d\d[a-z]?\)"),
    re.compile(r"\b[A-Z][\w'\u2019-]{1,30} et al\b"),
    re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]++", re.IGNORECASE),
    re.compile(r"\b10\.\d{4,9}/[^\s<>\"')\]]++|\barXiv:\d{4}\.\d{4,5}", re.IGNORECASE),
)
_ASKS_FOR_REFERENCES = re.compile(
    r"\b(?:cit(?:e|es|ing|ation|ations)|references?|sources?|bibliograph\w*|links?|urls?|websites?|doi|stud(?:y|ies)"
    r"|research|papers?)\b|https?://",
    re.IGNORECASE,
)
_LAYOUT: Final = (
    re.compile(r"^[ \t]{0,3}#{1,6}[ \t]", re.MULTILINE),
    re.compile(r"^[ \t]*+(?:[-*+\u2022]|\d{1,3}[.)])[ \t]", re.MULTILINE),
    re.compile(r"\*\*[^*\n]{1,200}\*\*|__[^_\n]{1,200}__"),
    re.compile("[\u2600-\u27bf\u2b50\U0001f300-\U0001faff]"),
)
_WORD = re.compile(r"\w++")

NAMES: Final = ("authority_added", "references_added", "layout_only")


@component
class Decorative(Findings):
    """Finds ornaments that a rewrite has and its original (instruction, input and response) doesn't.

    `authority`: more appeals to unnamed studies and experts. `references`: citations, years behind names, DOIs and
    addresses, unless the taken instruction speaks of sources. `layout`: more headings, list marks, bold and emoji than
    the original response has, and more than `marks_above` per 100 words, while less than `new_below` of the content
    words are new.
    """

    needs: ClassVar[tuple[str, ...]] = (
        *("instruction", "input", "response"),
        *(ORIGINAL + "instruction", ORIGINAL + "input", ORIGINAL + "response"),
    )

    authority: bool = True
    references: bool = True
    layout: bool = True
    marks_above: Annotated[float, Field(ge=0)] = 5.0
    new_below: Annotated[float, Field(ge=0, le=1)] = 0.2

    def found(self, chosen: Chosen) -> dict[str, RowFlags]:
        """Return which rows are decorated how."""
        columns = zip(*(chosen.texts[name] for name in self.needs), strict=True)
        found = [
            self._found(dict(zip(self.needs, texts, strict=True))) if kind_of(version) != "original" else set()
            for version, texts in zip(chosen.version, columns, strict=True)
        ]
        on = (self.authority, self.references, self.layout)
        return marked(found, tuple(name for name, wanted in zip(NAMES, on, strict=True) if wanted))

    def _found(self, texts: Mapping[str, str]) -> set[str]:
        asked = f"{texts['instruction']}\n{texts['input']}"
        known = "\n".join([asked, *(texts[name] for name in self.needs if name.startswith(ORIGINAL))])
        response = texts["response"]
        found = set[str]()
        claims = appeals(response) if self.authority else 0
        if claims and claims > appeals(known):
            found.add("authority_added")
        cited = references(response) if self.references and not _ASKS_FOR_REFERENCES.search(asked) else set()
        if cited and cited - references(known):
            found.add("references_added")
        if self.layout and self._is_layout_only(response, texts[ORIGINAL + "response"], known):
            found.add("layout_only")
        return found

    def _is_layout_only(self, response: str, before: str, known: str) -> bool:
        marks, words = layout_marks(response), sum(1 for _ in _WORD.finditer(response))
        if marks <= layout_marks(before) or 100 * marks <= self.marks_above * words:
            return False
        said = content_words(response)
        return len(said - content_words(known)) < self.new_below * len(said)


def appeals(text: str) -> int:
    """Return how often a text appeals to an authority that it doesn't name."""
    return sum(1 for _ in _AUTHORITY.finditer(text))


def references(text: str) -> set[str]:
    """Return the references of a text; what stands in code is none."""
    prose = _CODE.sub(" ", text)
    return {match[0].strip().rstrip(".,;:").casefold() for one in _REFERENCES for match in one.finditer(prose)}


def layout_marks(text: str) -> int:
    """Return how many headings, list marks, bold passages and emoji a text has outside its code."""
    prose = _CODE.sub(" ", text)
    return sum(1 for one in _LAYOUT for _ in one.finditer(prose))
