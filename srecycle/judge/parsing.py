"""Reading a judge's reply: two scores (pairwise), or one (single grading); else the reason why not. Pure.

Scores are read from lines that hold them and nothing else worth mentioning: `8 9`, `8.5/10 and 7`, `Assistant 1: 8`
above `Assistant 2: 7`, `**Scores: 8, 9**`, JSON. A first line of the asked form (two numbers, or both assistants named)
counts whatever follows. Elsewhere all such lines must agree, and one that names nobody must be the first or the last.
`Score 1: 8` is no pair: which of its numbers is the assistant's isn't told. Numbers in sentences are never scores: a
judge may quote an answer that asks for a 10.

A grade is the last line's `[[7]]`; else the lines that are a grade and nothing more must agree (of a cut reply, the
first); else `[[7]]` ends the last sentence.

Reasons: `empty`, `refused`, `cut` (the reply ended before the scores did), `out_of_range`, `ambiguous` (readings that
differ), `unparsed`.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from srecycle.rows import OK

LOWEST: Final = 1.0
HIGHEST: Final = 10.0
"""The scale that judges are asked to use."""

Pair = tuple[float, float]
_AMBIGUOUS: Final = "ambiguous"

# Possessive quantifiers (`*+`): without them a long run of spaces or brackets is tried in every way to split it.
_NUMBER = r"[-+]?\d++(?:\.\d++)?"
_OUT_OF_TEN = r"(?:\s*+/\s*+10(?![\d.]*\d)|\s++(?:out\s++)?of\s++(?:10|ten)\b)?"
_SCORE = re.compile(rf"(?<![\w.])({_NUMBER})(?![\w%]|\.\d){_OUT_OF_TEN}", re.IGNORECASE | re.ASCII)
_SCALE = re.compile(r"\(?\b1\s*+(?:-|to)\s*+10\b\)?", re.ASCII)
_WHO = r"(?:assistant|answer|response|model|candidate|ai)"
_LABEL = re.compile(
    rf"\b(?:ai\s++)?{_WHO}(?:'s)?\s*+(?:answer\s*+)?[#(\[]?\s*+(1|2|one|two|a|b)\b[)\]]?(?:'s)?",
    re.IGNORECASE | re.ASCII,
)
_ENUMERATION = re.compile(r"(?:(?<=^)|(?<=[,;|]))\s*([12])\s*[.):]\s+(?=[-+]?\d)", re.ASCII)
_FIRST, _SECOND = "\x01", "\x02"
"""What stands for a label while a line is read."""

_FILLERS: Final = (
    "a an and assistant assistants at be both deserves final for get gets give gives giving i is it my of on out "
    "overall points point rating ratings receives respectively s scale score scored scores scoring the to versus "
    "vs with would their as follows are answer"
)
_FILLING: Final = frozenset(_FILLERS.split())
"""Words that a line of scores may have besides them."""
_WORD = re.compile(r"[^\W\d_]+")
_BETWEEN = r"(?:[\s,;|&]|\b(?:and|an?|vs|versus)\b)+"
_APART = re.compile(rf"\x03{_BETWEEN}\x03", re.IGNORECASE)
_BARE = re.compile(
    rf"[\s|(\[]*+(?:(?:(?:the|my|final|overall)\s++)*+(?:scores?|ratings?)\s*+[:=])?[\s|(\[]*+\x03{_BETWEEN}\x03[\s|)\].!]*",
    re.IGNORECASE,
)
"""Two scores (\\x03) and nothing but separators, or a heading before them."""
_ENDS_A_SCORE = re.compile(r"\s*(?:$|[.,;:(|\u2013\u2014-](?!\d))")
_SEPARATED = re.compile(r"(?:[-=:(]|\bis\b|\bscores?\b|\brating\b|\bgets\b|\breceives\b|\ban?\b|\s)*+", re.IGNORECASE)
_UNTIDY = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2014": "-", "*": None, "`": None, "\x01": None, "\x02": None})
_REFUSAL = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:sorry|unable|not able)"
    r"|i (?:can(?:no|['\u2019])t|cannot|won['\u2019]t|will not|refuse|(?:must )?decline)"
    r"|as an ai\b|unable to (?:assist|help|comply|evaluate|rate))",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300
_HUGE = 1e9
_IN_BRACKETS = rf"\[\[\s*+({_NUMBER})\s*+(?:/\s*+10\s*+)?\.?\s*+\]\]{_OUT_OF_TEN}"
_RATING = r"(?:(?:final|overall|my)\s++)*+(?:rating|score|grade)?\s*+(?:is\b)?\s*+[:=-]?\s*+"
_BRACKETED = re.compile(_IN_BRACKETS, re.IGNORECASE | re.ASCII)
_BRACKETED_LINE = re.compile(rf"{_RATING}{_IN_BRACKETS}\s*[.!]?", re.IGNORECASE | re.ASCII)
_PLAIN_LINE = re.compile(rf"{_RATING}\[?({_NUMBER})\]?{_OUT_OF_TEN}\s*[.!]?", re.IGNORECASE | re.ASCII)
_ENDS_IN_BRACKETS = re.compile(rf"{_IN_BRACKETS}\s*[.!]?$", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a reply says: `scores` in the order in which the answers were shown, or why there are none (`status`)."""

    status: str = OK
    scores: tuple[float, ...] = ()


def read_pair(reply: str, finish_reason: str = "stop") -> Scored:
    """Return the scores of two answers. `finish_reason` is the server's: "length" says that the reply was cut."""
    text, lines = finished(reply, finish_reason)
    cut = finish_reason == "length"
    if (first := _deciding(lines, cut)) is not None:
        return _in_range(first)
    if (pair := _pair_of_json(text)) is not None:
        return _in_range(pair)
    unnamed, named = _pairs(lines)
    found = {*unnamed.values(), *named}
    if len(found) > 1 or _AMBIGUOUS in found:
        return Scored(status=_AMBIGUOUS)
    # A line that names nobody may be quoted, unless the reply begins or ends with it.
    if found and (named or (not cut and unnamed.keys() & {0, len(lines) - 1})):
        (only,) = found
        assert isinstance(only, tuple)
        return _in_range(only)
    return Scored(status=why_none(reply, finish_reason))


def _deciding(lines: Sequence[str], cut: bool) -> Pair | None:
    """Return the scores of a first line that counts whatever follows."""
    pair = _pair_of_line(lines[0]) if lines else None
    if not isinstance(pair, tuple):
        return None
    if _named(lines[0]):
        return pair
    if not _BARE.fullmatch(_SCORE.sub("\x03", _marked(lines[0]))):
        return None
    # `1 8` above `2 7` numbers the assistants; of a cut reply, the line below may not be known.
    second = _pair_of_line(lines[1]) if len(lines) > 1 else (2.0, 0.0) if cut else None
    numbered = pair[0] == 1 and isinstance(second, tuple) and second[0] == 2 and not _named("".join(lines[1:2]))
    return None if numbered else pair


def read_grade(reply: str, finish_reason: str = "stop") -> Scored:
    """Return the score of one answer. `finish_reason` is as for a pair."""
    _, lines = finished(reply, finish_reason)
    cut = finish_reason == "length"
    if lines and not cut and (match := _BRACKETED_LINE.fullmatch(lines[-1])):
        return _in_range((float(match[1]),))
    found = {
        float(match[1])
        for line in (lines[:1] if cut else lines)
        if (match := _BRACKETED_LINE.fullmatch(line) or _PLAIN_LINE.fullmatch(line))
    }
    if not found and lines and not cut and not _refuses(reply) and _ENDS_IN_BRACKETS.search(lines[-1]):
        found = {float(value) for value in _BRACKETED.findall(lines[-1])}
    if len(found) > 1:
        return Scored(status=_AMBIGUOUS)
    return _in_range(tuple(found)) if found else Scored(status=why_none(reply, finish_reason))


def _in_range(scores: Sequence[float]) -> Scored:
    within = all(LOWEST <= score <= HIGHEST for score in scores)
    return Scored(scores=tuple(scores)) if within else Scored(status="out_of_range")


def why_none(reply: str, finish_reason: str) -> str:
    if finish_reason == "content_filter":
        return "refused"
    if finish_reason == "length":
        return "cut"
    if not reply.strip():
        return "empty"
    return "refused" if _refuses(reply) else "unparsed"


def _refuses(reply: str) -> bool:
    return _REFUSAL.search(reply[:_REFUSAL_WITHIN]) is not None


def finished(reply: str, finish_reason: str) -> tuple[str, list[str]]:
    """Return the tidied text and its lines. The last line of a cut reply may lack the end of a number: it is left out.

    So are quoted lines, and fences of code.
    """
    text = reply.translate(_UNTIDY)
    whole = text.splitlines()
    if finish_reason == "length" and whole:
        whole = whole[:-1]
    lines = [line.strip().lstrip("#").strip() for line in whole]
    return text.strip(), [line for line in lines if line and not line.startswith(">") and line != "json"]


def _pairs(lines: Sequence[str]) -> tuple[dict[int, Pair | str], list[Pair | str]]:
    """Return the pairs of lines that name nobody, by the line's number, and those of lines with labels."""
    labelled: dict[str, set[float]] = {_FIRST: set(), _SECOND: set()}
    unnamed, named = dict[int, Pair | str](), list[Pair | str]()
    for number, line in enumerate(lines):
        pair = _pair_of_line(line)
        if pair is not None and _named(line):
            named.append(pair)
        elif pair is not None:
            unnamed[number] = pair
        elif single := _labelled(line):
            labelled[single[0]].add(single[1])
    if all(labelled.values()):
        firsts, seconds = labelled.values()
        named.append((firsts.pop(), seconds.pop()) if len(firsts) == len(seconds) == 1 else _AMBIGUOUS)
    return unnamed, named


def _named(line: str) -> bool:
    """Whether the line has a label of an assistant."""
    return any(mark in _marked(line) for mark in (_FIRST, _SECOND))


def _marked(line: str) -> str:
    """Put marks in the place of labels, and take the scale away that a line may repeat."""
    names = {"1": _FIRST, "one": _FIRST, "a": _FIRST, "2": _SECOND, "two": _SECOND, "b": _SECOND}
    line = _ENUMERATION.sub(lambda match: f" {names[match[1]]} ", _SCALE.sub(" ", line))
    return _LABEL.sub(lambda match: f" {names[match[1].lower()]} ", line)


def _pair_of_line(line: str) -> Pair | str | None:
    """Return the two scores of a line that is made of them; None where it is not, or "ambiguous"."""
    line = _marked(line)
    scores = [float(match[1]) for match in _SCORE.finditer(line)]
    rest = _SCORE.sub("\x03", line)
    if len(scores) < 2 or any(word.lower() not in _FILLING for word in _WORD.findall(rest)):
        return None
    marks = re.sub(r"[^\x01-\x03]", "", rest)
    order = marks.replace("\x03", "")
    if len(scores) > 2 or re.search(r"\d", rest) or re.search(r"\x03\s*[-/.]\s*\x03", rest):
        return _AMBIGUOUS
    if not order:
        return (scores[0], scores[1]) if _APART.search(rest) else _AMBIGUOUS
    apart = marks in ("\x01\x03\x02\x03", "\x02\x03\x01\x03", "\x03\x01\x03\x02", "\x03\x02\x03\x01")
    if not apart and marks not in ("\x01\x02\x03\x03", "\x02\x01\x03\x03"):
        return _AMBIGUOUS
    return (scores[0], scores[1]) if order == _FIRST + _SECOND else (scores[1], scores[0])


def _labelled(line: str) -> tuple[str, float] | None:
    """Return label and score of a line that begins with them; a comment may follow."""
    line = _marked(line).strip().lstrip("-+ ")
    if line[:1] not in (_FIRST, _SECOND):
        return None
    start = _SEPARATED.match(line, 1)
    match = _SCORE.match(line, start.end() if start else 1)
    if match is None or not _ENDS_A_SCORE.match(line, match.end()):
        return None
    return line[0], float(match[1])


def _pair_of_json(text: str) -> Pair | None:
    """Return the two scores of a reply that is JSON: a list of two, or an object that names them."""
    start = text.removeprefix("json").lstrip()
    if start[:1] not in ("{", "["):
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(start)
        return _pair_of_value(value)
    except (ValueError, RecursionError):
        return None


def _pair_of_value(value: Any) -> Pair | None:
    if isinstance(value, list) and len(value) == 2:
        first, second = map(_number, value)
        return None if first is None or second is None else (first, second)
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("scores"), list | dict):
        return _pair_of_value(value["scores"])
    found: dict[str, list[float]] = {_FIRST: [], _SECOND: []}
    for key, item in value.items():
        name = re.sub(rf"{_WHO}|score|rating|[\W_]", "", key.lower())
        number = _number(item.get("score") if isinstance(item, dict) else item)
        if name in ("1", "a", "2", "b") and number is not None:
            found[_FIRST if name in "1a" else _SECOND].append(number)
    firsts, seconds = found.values()
    return (firsts[0], seconds[0]) if len(firsts) == len(seconds) == 1 else None


def _number(value: Any) -> float | None:
    if isinstance(value, str) and (match := _SCORE.fullmatch(value.strip())):
        return float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _HUGE else None
