"""What an instruction fixes: its numbers, code, names and constraints, read by patterns.

What is code is no name, and the 200 of "in 200 words" is a constraint and no number: a loss has one reason.
All patterns are possessive or bounded, and take time linear in the text.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import dropwhile, islice
from typing import Final, TypeVar

from srecycle.keep.findings import FUNCTION_WORDS, content_words, singular
from srecycle.keep.numbers import VALUE, WORD_VALUES, Number, numbers, plain

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A length that is asked for, in a unit, from `low` to `high`: "at most 3 sentences" is 0 to 3 of `sentence`."""

    unit: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Another constraint: its kind, and the words that must stand with it (any of them, or any synonym)."""

    kind: str
    words: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a text fixes. `literals` are quotations, identifiers and addresses; `names` capitalised words."""

    numbers: tuple[Number, ...]
    code: tuple[str, ...]
    literals: tuple[str, ...]
    names: tuple[frozenset[str], ...]
    limits: tuple[Limit, ...]
    rules: tuple[Rule, ...]


_FENCED = re.compile(r"^[ \t]*+(?:```|~~~)[^\n]*+\n(.*?)(?:^[ \t]*+(?:```|~~~)|\Z)", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]++)`")
# Data sets seldom mark code: these are lines that hardly can be anything else.
_CODE_LINE = re.compile(
    r"^[ \t]*+(?:def \w++\(|class \w++[ \t]*+[:({]|import \w[\w.]*+;?$|from [\w.]++ import |\#include\b|function \w*+\("
    r"|(?:public|private|protected|static) \w|(?:const|let|var) \w++ ?+=|SELECT [^\n]*? FROM |INSERT INTO |[})\]]+;?$"
    r"|(?:for|while|if) ?\([^\n]*+(?<=[{)])|[\w.]++\([^\n]*+(?<=;)|(?<=[ \t])return |</\w++>|<\w++ [\w-]++=\""
    r"|<(?:!doctype|html|head|body|div|span|p|ul|ol|li|table|tr|form|script|style|h[1-6])>)[^\n]*+",
    re.MULTILINE,
)
_ADDRESS = re.compile(r"\b(?:https?://|www\.)[^\s<>\"')\]]++|\b10\.\d{4,9}/[^\s<>\"')\]]++", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"\n]{2,200})"|\u201c([^\u201c\u201d\n]{2,200})\u201d')
_IDENTIFIER = re.compile(
    r"\b(?:[A-Za-z][A-Za-z0-9]*+(?:_[A-Za-z0-9]++)++|[a-z]++(?:[A-Z][a-z0-9]++)++|[A-Za-z_]\w*+\(\))"
)
_CAPITALISED = r"[A-Z\u00c0-\u00de](?:[^\W_]|['\u2019-](?=[^\W_]))*+"
_RUN = re.compile(rf"\b{_CAPITALISED}(?:[ ](?:(?:of|de|del|di|da|la|von|van|du|the|o')[ ]){{0,2}}{_CAPITALISED})*+")
_BEGINNING: Final = ".!?:;\n\t\u2022-*()[]>|/#\"'\u201c\u201d\u2026"
_UNNAMING = re.compile(rf".|mr|mrs|ms|dr|prof|.*['\u2019](?:d|ll|m|re|t|ve)|{'|'.join(sorted(FUNCTION_WORDS))}")
_MOST = 300
"""Of what is more than that in one text (a document), the first are looked at."""

_LONGEST_NAME = 6
"""Longer sequences of capitalised words are headings."""

_UNIT = r"(?:(?:word|sentence|paragraph|line|character|letter|page|stanza|verse|bullet|syllable|item)s?)\b"
_AMOUNT = rf"(?:{VALUE}|(?:one|a single|{WORD_VALUES})\b)"
_LIMIT = re.compile(
    rf"(?<![\w.,])({_AMOUNT})(?:[ ]?(?:-|\u2013|to|and|or)[ ]?({_AMOUNT}))?[\s-]{{1,2}}"
    rf"(?:(?!{_UNIT})[^\W\d]{{1,15}}[ -])?({_UNIT})",
    re.IGNORECASE,
)
_AT_MOST = re.compile(
    r"(?:at most|no more than|not more than|up to|maximum(?: of)?|max|less than|fewer than|under|within|below"
    r"|(?:not|never) exceed(?:ing)?)[ ](?:a |the )?$",
    re.IGNORECASE,
)
_AT_LEAST = re.compile(r"(?:at least|no less than|no fewer than|minimum(?: of)?|more than|over)[ ](?:a |the )?$", re.I)
_OR_LESS = re.compile(r"[ ](?:or (?:less|fewer)|at most|max(?:imum)?\b|or under)", re.IGNORECASE)
_OR_MORE = re.compile(r"[ ](?:or (?:more|longer)|at least|min(?:imum)?\b)", re.IGNORECASE)

_FORMATS: Final = ("json", "xml", "csv", "yaml", "html", "markdown", "latex", "table", "bullet", "haiku", "sonnet")
_FORMAT = re.compile(
    r"\b(?:in|as|into|to|using|with|create|make|write|draw|compose|produce|generate)[ ](?:an?[ ]|the[ ]|valid[ ]){0,2}"
    rf"(?:form of an?[ ])?({'|'.join(_FORMATS)})(?:s|ed|e?d list)?\b",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(
    r"\b(?:in|into|to|using)[ ](arabic|chinese|dutch|english|french|german|greek|hindi|italian|japanese|korean|latin"
    r"|mandarin|polish|portuguese|russian|spanish|swedish|turkish|java|javascript|kotlin|matlab|perl|php|python|ruby"
    r"|rust|scala|sql|swift|typescript|c\+\+|c\#)(?!\w)",
    re.IGNORECASE,
)
# Only after verbs of writing: "explain what happens if you do not sleep" forbids nothing.
_FORBIDDEN = re.compile(
    r"\b(?:without(?: (?:using|mentioning|including|repeating|changing|naming|altering))"
    r"|(?:do not|don't|don\u2019t|never|must not|should not|shouldn't|avoid)"
    r" (?:us(?:e|ing)|includ(?:e|ing)|mention(?:ing)?|repeat(?:ing)?|chang(?:e|ing)|nam(?:e|ing)|copy(?:ing)?"
    r"|quot(?:e|ing)|exceed(?:ing)?|add(?:ing)?|alter(?:ing)?|reveal(?:ing)?|employ(?:ing)?))[ ]",
    re.IGNORECASE,
)
_ONLY = re.compile(r"\b(?:us(?:e|ing) only|only us(?:e|ing)|consisting only of|made only of)[ ]", re.IGNORECASE)
_VOICE = re.compile(r"\b(first|second|third)[- ](person)\b|\b(past|present|future)[- ](tense)\b", re.IGNORECASE)
_OBJECT = re.compile(r"[^.,;:!?\n]{0,60}")
_OBJECT_WORDS = 4


def facts(instruction: str, given: str = "") -> Facts:
    """Read an instruction and its input. Constraints are the instruction's alone: what is given is to be worked on."""
    limits, rules = _firsts(_limits(instruction)), _firsts(_rules(instruction))
    text = _LIMIT.sub(" ", instruction) + "\n" + given
    code, text = _taken((_FENCED, _INLINE, _CODE_LINE), text)
    literals, text = _taken((_ADDRESS, _QUOTED, _IDENTIFIER), text)
    return Facts(
        numbers=_firsts(numbers(text)),
        code=_firsts(line.strip() for block in code for line in block.split("\n") if re.search(r"\w", line)),
        literals=_firsts(one.strip(" .,;:!?") for one in literals),
        names=_firsts(_names(_LANGUAGE.sub(" ", _FORMAT.sub(" ", text)))),
        limits=limits,
        rules=rules,
    )


def runs(text: str) -> list[frozenset[str]]:
    """Return the sequences of capitalised words as sets of words, with and without a sentence's first word."""
    named = [_named(match[0]) for match in _RUN.finditer(text)]
    return [parts for words in named for one in (words, words[1:]) if (parts := _parts(one))]


def _names(text: str) -> Iterator[frozenset[str]]:
    """Yield what is a name. A sentence's first word may be capitalised for no other reason, and is left out.

    So are, by themselves, "I", single letters, titles, and what a colon makes a label.
    """
    for match in _RUN.finditer(text):
        words = _named(match[0])
        before = text[max(0, match.start() - 3) : match.start()].rstrip(" ")
        begins = not before or before[-1] in _BEGINNING
        if begins and match[0].split()[0].casefold() not in FUNCTION_WORDS:
            words = words[1:]
        if len(words) == 1 and (_UNNAMING.fullmatch(words[0]) or text[match.end() : match.end() + 1] == ":"):
            continue
        if words and len(parts := _parts(words)) <= _LONGEST_NAME:
            yield parts


def _named(run: str) -> list[str]:
    """Return a sequence's capitalised words, without a possessive's end, and without an article in front."""
    words = [re.sub(r"['\u2019]s?$", "", word).casefold() for word in run.split() if word[:1].isupper()]
    return list(dropwhile(FUNCTION_WORDS.__contains__, words))


def _parts(words: list[str]) -> frozenset[str]:
    """Return a name's words. A number at its end isn't needed to tell it (COVID-19)."""
    return frozenset(singular(part) for word in words for part in word.split("-") if part and not part.isdigit())


def _limits(text: str) -> Iterator[Limit]:
    for match in _LIMIT.finditer(text):
        before, behind = text[max(0, match.start() - 25) : match.start()], text[match.end() : match.end() + 15]
        most = _AT_MOST.search(before) or _OR_LESS.match(behind)
        least = _AT_LEAST.search(before) or _OR_MORE.match(behind)
        values = sorted(float(plain(one)) for one in match.groups()[:2] if one)
        low, high = 0.0 if most else values[0], math.inf if least and not most else values[-1]
        yield Limit(unit=singular(match[3].casefold()), low=low, high=high)


def _rules(text: str) -> Iterator[Rule]:
    for kind, pattern in (("format", _FORMAT), ("language", _LANGUAGE)):
        for match in pattern.finditer(text):
            yield Rule(kind=kind, words=frozenset({match[1].casefold()}))
    for kind, pattern in (("forbidden", _FORBIDDEN), ("only", _ONLY)):
        for match in pattern.finditer(text):
            behind = _OBJECT.match(text, match.end())
            words = re.findall(r"[^\W\d_]++", behind[0] if behind else "")[:_OBJECT_WORDS]
            if named := content_words(" ".join(words)):
                yield Rule(kind=kind, words=frozenset(named))
    for match in _VOICE.finditer(text):
        yield Rule(kind=(match[2] or match[4]).casefold(), words=frozenset({(match[1] or match[3]).casefold()}))


def _firsts(found: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(islice(found, _MOST)))


def _taken(patterns: tuple[re.Pattern[str], ...], text: str) -> tuple[list[str], str]:
    """Return what the patterns find, and the text without it."""
    found: list[str] = []
    for pattern in patterns:
        found += [next((group for group in match.groups() if group), match[0]) for match in pattern.finditer(text)]
        text = pattern.sub(" ", text)
    return found, text
