"""The numbers of a text, in one way of writing them: "five", "5.0" and "5e0" are the same, and "$5" is no "5%".

All patterns are possessive or bounded, and take time linear in the text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from srecycle.keep.findings import content_words


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number in one way of writing it ("1,000.0" is "1000", "1e3" too), and the content words behind it: what it
    counts. `unit` is "%" or a currency's sign, however it was written; "" without one.
    """

    value: str
    unit: str
    counts: frozenset[str]


# "one" is mostly a pronoun ("one of the following"), and "second" an ordinal: neither is read as a number by itself.
_WORDED: Final = {
    **{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"},
    **{"ten": "10", "eleven": "11", "twelve": "12", "dozen": "12", "thirteen": "13", "fourteen": "14", "fifteen": "15"},
    **{"sixteen": "16", "seventeen": "17", "eighteen": "18", "nineteen": "19", "twenty": "20", "thirty": "30"},
    **{"forty": "40", "fifty": "50"},
}
VALUE = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)(?:\.\d++)?"
WORD_VALUES = "|".join(_WORDED)
# A sign stands close to its number, and behind a space or an operator; behind "5 ", "x " or ") " it subtracts.
_SIGN = r"(?<![^\s(\[{=+*/^<>,:])(?<![\d)\]]\s)(?<!\b\w\s)(?<!\d\w\s)[-\u2212\u2013](?=\d)"
# Digits inside names (H2O, GPT-4, x_1) belong to those; "three hundred" isn't worked out.
_NUMBER = re.compile(
    rf"(?:{_SIGN})?+(?<!\w)(?<!\d[.,])(?<![^\W\d]-)(?:{VALUE}(?:e[+-]?\d{{1,2}}(?!\w))?"
    rf"|(?:{WORD_VALUES})(?!\w|[ -](?:hundred|thousand|million)\b))",
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
_MEASURED = re.compile(rf"{_SIGNS}|{_UNIT_WORDS}", re.IGNORECASE)
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


def numbers(text: str) -> Iterator[Number]:
    """Read the numbers of a text; the marks of its enumerations are none."""
    text = _ENUMERATION.sub(" ", text)
    for match in _NUMBER.finditer(text):
        counts = frozenset(content_words(" ".join(_behind(text, match))))
        yield Number(value=plain(match[0]), unit=_unit(text, match, _UNITS), counts=counts)


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
    any_unit = _MEASURED.search(text) is not None
    units = [_unit(text, match, _UNITS_PERHAPS) if any_unit else "" for match in matches]
    behind = range(1, len(matches) if any_unit else 0)
    joined = [at for at in behind if _JOINED.fullmatch(text, matches[at - 1].end(), matches[at].start())]
    for at in joined:
        units[at] = units[at] or units[at - 1]
    for at in reversed(joined):
        units[at - 1] = units[at - 1] or units[at]
    found: dict[str, set[str]] = {}
    for match, unit in zip(matches, units, strict=True):
        found.setdefault(plain(match[0]), set()).add(unit)
        if _NEGATIVE.search(text, max(0, match.start() - 9), match.start()):
            found.setdefault("-" + plain(match[0]), set()).add(unit)
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


def plain(value: str) -> str:
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
