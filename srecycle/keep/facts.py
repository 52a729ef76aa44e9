"""What an instruction fixes: its numbers, code, names and constraints, read by patterns.

What is code is no name, and the 200 of "in 200 words" is a constraint and no number: a loss has one reason.
All patterns are possessive or bounded, and take time linear in the text.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import dropwhile, islice
from typing import Final, TypeVar

from srecycle.keep.findings import FUNCTION_WORDS, content_words, singular

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number in one way of writing it ("1,000.0" is "1000", "1e3" too), and the content words behind it: what it
    counts. `unit` is "%" or a currency's sign, however it was written; "" without one.
    """

    value: str
    unit: str
    counts: frozenset[str]


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
    """What a text fixes. `literals` are quotations, identifiers and addresses; `names` capitalised words and sequences."""

    numbers: tuple[Number, ...]
    code: tuple[str, ...]
    literals: tuple[str, ...]
    names: tuple[frozenset[str], ...]
    limits: tuple[Limit, ...]
    rules: tuple[Rule, ...]


# "one" is mostly a pronoun ("one of the following"), and "second" an ordinal: neither is read as a number by itself.
_WORDED: Final = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"ten": "10", "eleven": "11", "twelve": "12", "dozen": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15"},
    **{"sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30"},
    **{"forty": "40", "fifty": "50"},
}
_VALUE = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?"
_WORD_VALUES = "|".join(_WORDED)
# A sign stands close to its number, and behind a space or an operator; behind "5 ", "x " or ") " it subtracts.
_SIGN = r"(?<![^\s(\[{=+*/^<>,:])(?<![\d)\]]\s)(?<!\b\w\s)(?<!\d\w\s)[-\u2212\u2013](?=\d)"
# Digits inside names (H2O, GPT-4, x_1) belong to those; "three hundred" isn't worked out.
_NUMBER = re.compile(
    rf"(?:{_SIGN})?+(?<!\w)(?<!\d[.,])(?<![^\W\d]-)(?:{_VALUE}(?:e[+-]?\d{{1,2}}(?!\w))?"
    rf"|(?:{_WORD_VALUES})(?!\w|[ -](?:hundred|thousand|million)\b))",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"\b(?:minus|negative)[ ]$", re.IGNORECASE)
_UNITS: Final = {
    **{"%": "%", "percent": "%", "percentage": "%", "per cent": "%", "pct": "%"},
    **{"$": "$", "dollar": "$", "buck": "$", "usd": "$", "\u20ac": "\u20ac", "euro": "\u20ac", "eur": "\u20ac"},
    **{"\u00a3": "\u00a3", "gbp": "\u00a3", "\u00a5": "\u00a5", "yen": "\u00a5", "jpy": "\u00a5"},
    **{"\u20b9": "\u20b9", "rupee": "\u20b9", "inr": "\u20b9"},
}
_UNITS_PERHAPS: Final = {**_UNITS, "pound": "\u00a3"}
"""A rewrite may say 20 pounds for \u00a320; whether an original's 20 pounds are money isn't known."""

_SIGNS = r"[%$\u20ac\u00a3\u00a5\u20b9]"
_UNIT_WORDS = "|".join(one for one in _UNITS_PERHAPS if one[0].isalpha())
_UNIT_BEFORE = re.compile(rf"({_SIGNS}|\b(?:usd|eur|gbp|jpy|inr))[ ]?$", re.IGNORECASE)
_UNIT_BEHIND = re.compile(
    r"(?:[ -](?:hundred|thousand|million|billion|trillion|us|u\.s\.|american|canadian|australian)){0,2}"
    rf"[ -]?({_SIGNS}(?![ ]?[\d(])|(?:{_UNIT_WORDS})(?=s?\b))",
    re.IGNORECASE,
)
_JOINED = re.compile(rf"[ ]?(?:-|\u2013|to|and|or|,)[ ]?{_SIGNS}?")
_ONE = re.compile(r"\bone\b", re.IGNORECASE)
_ENUMERATION = re.compile(r"^[ \t]*+\d{1,3}[.)](?=[ \t])|\(\d{1,2}\)", re.MULTILINE)
_LETTERS = re.compile(r"[^\W\d_]++")
_COUNTED_WITHIN = 3
"""How many words behind a number are looked at for what it counts ("5 effective time management tips")."""

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
_AMOUNT = rf"(?:{_VALUE}|(?:one|a single|{_WORD_VALUES})\b)"
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


def numbers(text: str) -> Iterator[Number]:
    """Read the numbers of a text; the marks of its enumerations are none."""
    text = _ENUMERATION.sub(" ", text)
    for match in _NUMBER.finditer(text):
        counts = frozenset(content_words(" ".join(_behind(text, match))))
        yield Number(value=_plain(match[0]), unit=_unit(text, match, _UNITS), counts=counts)


def counted(text: str) -> set[str]:
    """Return what the numbers of a text count, all together."""
    text = _ENUMERATION.sub(" ", text)
    return content_words(" ".join({word for match in _NUMBER.finditer(text) for word in _behind(text, match)}))


def values(text: str) -> dict[str, set[str]]:
    """Return the values of a text's numbers with all units that each may have, and 1 where it speaks of one.

    Read generously: "5 to 10%" are 5% too, and "minus 5" is 5 as well as -5.
    """
    text = _ENUMERATION.sub(" ", text)
    matches = [*_NUMBER.finditer(text)]
    units = [_unit(text, match, _UNITS_PERHAPS) for match in matches]
    joined = [
        at for at in range(1, len(matches)) if _JOINED.fullmatch(text, matches[at - 1].end(), matches[at].start())
    ]
    for at in joined:
        units[at] = units[at] or units[at - 1]
    for at in reversed(joined):
        units[at - 1] = units[at - 1] or units[at]
    found: dict[str, set[str]] = {}
    for match, unit in zip(matches, units, strict=True):
        found.setdefault(_plain(match[0]), set()).add(unit)
        if _NEGATIVE.search(text, max(0, match.start() - 9), match.start()):
            found.setdefault("-" + _plain(match[0]), set()).add(unit)
    for match in _ONE.finditer(text):
        found.setdefault("1", set()).add(_unit(text, match, _UNITS_PERHAPS))
    return found


def _behind(text: str, number: re.Match[str]) -> list[str]:
    return _LETTERS.findall(text, number.end(), number.end() + 60)[:_COUNTED_WITHIN]


def _unit(text: str, number: re.Match[str], units: Mapping[str, str]) -> str:
    found = _UNIT_BEFORE.search(text, max(0, number.start() - 5), number.start()) or _UNIT_BEHIND.match(
        text, number.end()
    )
    return units.get(found[1].casefold(), "") if found else ""


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
        values = sorted(float(_plain(one)) for one in match.groups()[:2] if one)
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


def _plain(value: str) -> str:
    """Return a number's sign and digits: no separators, no exponent, no zeros in front or at its fraction's end."""
    if value.casefold() in ("one", "a single"):
        return "1"
    digits = _WORDED.get(value.casefold(), value).replace(",", "").lstrip("-\u2212\u2013")
    if "e" in digits.casefold():
        digits = f"{Decimal(digits):f}"
    whole, _, fraction = digits.partition(".")
    fraction = fraction.rstrip("0")
    plain = (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    return plain if value[0] not in "-\u2212\u2013" or plain == "0" else f"-{plain}"
