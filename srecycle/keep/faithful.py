"""Faithful rewrites: what the original instruction fixes must not vanish from its rewrite, nor be altered in it.

The paper's new instruction is related to the original but independent of it, so that most rewrites lose something by
design: this filter is for studies that recycle a set without leaving its tasks. A rewrite of the response alone keeps
the instruction, and passes.
"""

import re
from collections.abc import Iterator
from itertools import chain, combinations
from typing import ClassVar, Final

from srecycle.config import component
from srecycle.keep.base import ORIGINAL, Chosen
from srecycle.keep.facts import Facts, Limit, Rule, facts, runs
from srecycle.keep.findings import FUNCTION_WORDS, Findings, RowFlags, content_words, marked, singular
from srecycle.keep.numbers import counted, values
from srecycle.rows import kind_of

KEPT, CHANGED, LOST = "", "changed", "lost"
CLASSES: Final = ("number", "code", "name", "constraint")
NAMES: Final = tuple(f"{one}_{fate}" for one in CLASSES for fate in (LOST, CHANGED))
_ALTERED_SHARE = 0.5
"""A passage of which at least this share of the content words is still there was altered; less of it is lost."""

_MARKERS: Final = {
    "forbidden": re.compile(
        r"\b(?:without|not|never|avoid(?:s|ing)?|no|none|except|nor|omit\w*+|refrain\w*+|exclud\w*+|forb(?:id|ad)\w*+"
        r"|prohibit\w*+|leav(?:e|ing) out|free of|instead of|rather than)\b|n['\u2019]t\b",
        re.IGNORECASE,
    ),
    "only": re.compile(r"\b(?:only|solely|exclusively|nothing but)\b", re.IGNORECASE),
}
_REACH = 60
"""About how many characters from its words a marker ("without", "only") may stand: before them in a sentence, behind
them in a clause."""

_CLAUSE_END = re.compile(r"[.,;:!?\n]")
_SENTENCE_END = re.compile(r"[.;!?](?=\s)|\n\s*+\n")
_REST_OF_WORD = re.compile(r"\w{0,30}")
_STRAIGHT = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")
_VOICES: Final = {"person": ("first", "second", "third"), "tense": ("past", "present", "future")}


@component
class Faithful(Findings):
    """Finds what a new instruction lost or changed of the original (with its input), in the classes that are on.

    `numbers` (also in words; with sign, percent and currency), `code` (blocks, spans, lines that look like it), `names`
    (capitalised words but a sentence's first, quotations, identifiers, addresses) and `constraints` (lengths, formats,
    languages, what is forbidden, person and tense). Changed is what stands there otherwise: another number of the same
    things, another length of the same unit.
    """

    revision: ClassVar[int] = 2
    needs: ClassVar[tuple[str, ...]] = ("instruction", "input", ORIGINAL + "instruction", ORIGINAL + "input")

    numbers: bool = True
    code: bool = True
    names: bool = True
    constraints: bool = True

    def found(self, chosen: Chosen) -> dict[str, RowFlags]:
        """Return which rows lost or changed what."""
        on = dict(zip(CLASSES, (self.numbers, self.code, self.names, self.constraints), strict=True))
        texts = zip(*(chosen.texts[name] for name in self.needs), strict=True)
        found = [
            unfaithful(*one) if kind_of(version) in ("instruction", "both") else set()
            for version, one in zip(chosen.version, texts, strict=True)
        ]
        return marked(found, tuple(name for name in NAMES if on[name.partition("_")[0]]))


def unfaithful(instruction: str, given: str, before: str, given_before: str) -> set[str]:
    """Return what an instruction (and its input) lost or changed of the one before it, as names out of `NAMES`."""
    fixed = facts(before, given_before)
    rewrite = f"{instruction}\n{given}"
    fates = {
        "number": _numbers(fixed, rewrite),
        "code": _passages(fixed.code, rewrite),
        "name": [*_passages(fixed.literals, rewrite), *_names(fixed, rewrite)],
        "constraint": _constraints(fixed, facts(instruction), rewrite),
    }
    return {f"{name}_{fate}" for name, all_of_it in fates.items() for fate in all_of_it if fate != KEPT}


def _numbers(fixed: Facts, rewrite: str) -> Iterator[str]:
    there = values(rewrite) if fixed.numbers else {}
    gone = [one for one in fixed.numbers if one.value not in there or (one.unit and one.unit not in there[one.value])]
    things = counted(rewrite) if gone else set()
    for one in gone:
        yield CHANGED if one.value in there or one.counts & things else LOST


def _passages(passages: tuple[str, ...], rewrite: str) -> Iterator[str]:
    """Tell of passages that must stand word for word. Case, quotation marks and the width of spaces don't count."""
    if not passages:
        return
    text, there = _flat(rewrite), set(re.findall(r"\w++", _flat(rewrite)))
    for one in passages:
        words = [word for word in re.findall(r"\w++", _flat(one)) if word not in FUNCTION_WORDS]
        share = sum(word in there for word in words) / len(words) if words else 0.0
        yield KEPT if _flat(one) in text else CHANGED if share >= _ALTERED_SHARE else LOST


def _names(fixed: Facts, rewrite: str) -> Iterator[str]:
    """Tell of names. A part of one still names it (Gettysburg), unless it stands in another (Battle of Antietam).

    A name may lose its capitals as a whole (artificial intelligence).
    """
    if not fixed.names:
        return
    there = set(runs(rewrite))
    words = {singular(word) for word in re.findall(r"[^\W_]++", rewrite.casefold())}
    for name in fixed.names:
        # A name has few words: asking for each of its parts is quick, however many names the rewrite has.
        parts = chain.from_iterable(combinations(name, size) for size in range(1, len(name) + 1))
        if name <= words or any(frozenset(part) in there for part in parts):
            yield KEPT
        else:
            yield CHANGED if name & words else LOST


def _constraints(fixed: Facts, now: Facts, rewrite: str) -> Iterator[str]:
    for limit in fixed.limits:
        yield _limit(limit, [one for one in now.limits if one.unit == limit.unit])
    words = content_words(rewrite) | set(re.findall(r"[\w+#]++", rewrite.casefold())) if fixed.rules else set()
    marked_words = {
        kind: _near(_MARKERS[kind], rewrite) for kind in {rule.kind for rule in fixed.rules} & _MARKERS.keys()
    }
    for rule in fixed.rules:
        yield _rule(rule, words, rewrite, marked_words.get(rule.kind, set()))


def _limit(limit: Limit, there: list[Limit]) -> str:
    """Tell of a length. It may be narrowed ("at most 100" to "80 to 100"), or stand as a bound ("200", "up to 200")."""
    if not there:
        return LOST
    if limit.low == limit.high:
        return KEPT if any(limit.low in (one.low, one.high) for one in there) else CHANGED
    return KEPT if any(limit.low <= one.low and one.high <= limit.high for one in there) else CHANGED


def _rule(rule: Rule, words: set[str], rewrite: str, near: set[str]) -> str:
    """Tell of another constraint; `near` are the words with which a marker of its kind stands."""
    if rule.kind in ("format", "language"):
        return KEPT if rule.words & (words | {word.rstrip("s") for word in words}) else LOST
    if rule.kind in _VOICES:
        said = [one for one in _VOICES[rule.kind] if re.search(rf"\b{one}[- ]{rule.kind}\b", rewrite, re.IGNORECASE)]
        return KEPT if rule.words & set(said) else CHANGED if said else LOST
    if not rule.words & words:
        return LOST
    return KEPT if rule.words & near else CHANGED


def _near(marker: re.Pattern[str], text: str) -> set[str]:
    """Return the content words that stand with a marker."""
    near, reached = [], 0
    for match in marker.finditer(text):
        near.append(_CLAUSE_END.split(text[max(reached, match.start() - _REACH) : match.start()])[-1])
        start = max(reached, match.end())
        behind = text[start : _REST_OF_WORD.match(text, min(len(text), match.end() + _REACH)).end()]  # type: ignore[union-attr]
        near.append(_SENTENCE_END.split(behind, maxsplit=1)[0])
        reached = start + len(near[-1])
    return content_words(" ".join(near))


def _flat(text: str) -> str:
    return " ".join(text.translate(_STRAIGHT).casefold().split())
