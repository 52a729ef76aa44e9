"""Reading a judge's reply: two scores (pairwise), or one (single grading); else the reason why not. Pure.

Scores are read from lines that hold them and nothing else worth mentioning: `8 9`, `8.5/10 and 7`, `Assistant 1: 8`
above `Assistant 2: 7`, `**Scores: 8, 9**`, JSON. A first line of the asked form counts whatever follows. Elsewhere all
such lines must agree. Numbers in sentences are never scores: a judge may quote an answer that asks for a 10.

Reasons: `empty`, `refused`, `cut` (the reply ended before the scores did), `out_of_range`, `ambiguous` (readings that
differ), `unparsed`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from srecycle.rows import OK

LOWEST: Final = 1.0
HIGHEST: Final = 10.0
"""The scale that judges are asked to use."""

Pair = tuple[float, float]
_AMBIGUOUS: Final = "ambiguous"

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_OUT_OF_TEN = r"(?:\s*/\s*10(?![\d.]*\d)|\s+out\s+of\s+(?:10|ten)\b)?"
_SCORE = re.compile(rf"(?<![\w.])({_NUMBER})(?![\w%]|\.\d){_OUT_OF_TEN}", re.IGNORECASE | re.ASCII)
_SCALE = re.compile(r"\(?\b1\s*(?:-|to)\s*10\b\)?", re.ASCII)
_WHO = r"(?:assistant|answer|response|model|candidate|ai)"
_LABEL = re.compile(
    rf"\b(?:ai\s+)?{_WHO}(?:'s)?\s*(?:answer\s*)?[#(\[]?\s*(1|2|one|two|a|b)\b[)\]]?(?:'s)?", re.IGNORECASE | re.ASCII
)
_ENUMERATION = re.compile(r"(?:(?<=^)|(?<=[,;|]))\s*([12])\s*[.):]\s+(?=[-+]?\d)", re.ASCII)
_FIRST, _SECOND = "\x01", "\x02"
"""What stands for a label while a line is read."""

_FILLERS = frozenset(
    [
        "a",
        "an",
        "and",
        "assistant",
        "assistants",
        "at",
        "be",
        "both",
        "deserves",
        "final",
        "for",
        "get",
        "gets",
        "give",
        "gives",
        "giving",
        "i",
        "is",
        "it",
        "my",
        "of",
        "on",
        "out",
        "overall",
        "points",
        "point",
        "rating",
        "ratings",
        "receives",
        "respectively",
        "s",
        "scale",
        "score",
        "scored",
        "scores",
        "scoring",
        "the",
        "to",
        "versus",
        "vs",
        "with",
        "would",
        "would_be",
        "their",
        "as",
        "follows",
        "are",
        "answer",
    ]
)
_WORD = re.compile(r"[^\W\d_]+")
_ENDS_A_SCORE = re.compile(r"\s*(?:$|[.,;:(|\u2013\u2014-](?!\d))")
_SEPARATED = re.compile(
    r"\s*(?:[-=:(]|\bis\b|\bscores?\b|\brating\b|\bgets\b|\breceives\b|\ban?\b|\s)*\s*", re.IGNORECASE
)
_UNTIDY = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2014": "-", "*": None, "`": None, "\x01": None, "\x02": None})
_REFUSAL = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:sorry|unable|not able)"
    r"|i (?:can(?:no|['\u2019])t|cannot|won['\u2019]t|will not|must decline)"
    r"|as an ai\b|unable to (?:assist|help|comply|evaluate|rate))",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 300
_HUGE = 1e9
_BRACKETED = re.compile(rf"\[\[\s*({_NUMBER})\s*(?:/\s*10\s*)?\]\]", re.ASCII)
_RATING = re.compile(
    rf"(?:(?:final|overall|my)\s+)*(?:rating|score|grade)?\s*(?:is\b)?\s*[:=-]?\s*\[?({_NUMBER})\]?{_OUT_OF_TEN}\s*[.!]?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a reply says: `scores` in the order in which the answers were shown, or why there are none (`status`)."""

    status: str = OK
    scores: tuple[float, ...] = ()


def read_pair(reply: str, finish_reason: str = "stop") -> Scored:
    """Return the scores of two answers. `finish_reason` is the server's: "length" says that the reply was cut."""
    text, lines = finished(reply, finish_reason)
    if lines:
        first = _pair_of_line(lines[0])
        if isinstance(first, tuple):
            return _in_range(first)
    if (pair := _pair_of_json(text)) is not None:
        return _in_range(pair)
    found = set(_pairs(lines))
    if len(found) > 1 or _AMBIGUOUS in found:
        return Scored(status=_AMBIGUOUS)
    if found:
        (only,) = found
        assert isinstance(only, tuple)
        return _in_range(only)
    return Scored(status=why_none(reply, finish_reason))


def read_grade(reply: str, finish_reason: str = "stop") -> Scored:
    """Return the score of one answer: `[[7]]` anywhere, else a line that is a rating and nothing more."""
    found = {float(value) for value in _BRACKETED.findall(reply.translate(_UNTIDY))}
    if not found:
        _, lines = finished(reply, finish_reason)
        found = {float(match[1]) for line in lines if (match := _RATING.fullmatch(line.strip()))}
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
    return "refused" if _REFUSAL.search(reply[:_REFUSAL_WITHIN]) else "unparsed"


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


def _pairs(lines: Sequence[str]) -> Iterator[Pair | str]:
    """Yield each pair that the lines give: on one line, or one score a line with labels."""
    labelled: dict[str, set[float]] = {_FIRST: set(), _SECOND: set()}
    for line in lines:
        pair = _pair_of_line(line)
        if pair is not None:
            yield pair
        elif single := _labelled(line):
            labelled[single[0]].add(single[1])
    if all(labelled.values()):
        firsts, seconds = labelled.values()
        yield from ((first, second) for first in firsts for second in seconds)


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
    if len(scores) < 2 or any(word.lower() not in _FILLERS for word in _WORD.findall(rest)):
        return None
    marks = re.sub(r"[^\x01-\x03]", "", rest)
    order = marks.replace("\x03", "")
    if len(scores) > 2 or re.search(r"\d", rest) or re.search(r"\x03\s*[-/.]\s*\x03", rest):
        return _AMBIGUOUS
    if not order:
        return scores[0], scores[1]
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
    except (ValueError, RecursionError):
        return None
    return _pair_of_value(value)


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
