"""What dresses an answer up without making it better: pure functions of its text that add nothing to what it says.

| decoration   | the answer ...                                                                       |
|--------------|--------------------------------------------------------------------------------------|
| `references` | ends in a list of works that don't exist                                              |
| `authority`  | begins by saying that experts have confirmed it                                       |
| `formatting` | has a heading, a bullet a sentence, and bold beginnings: the same words               |
| `padding`    | ends in sentences that say nothing, again and again, until it is twice as long        |
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Literal

Decoration = Literal["references", "authority", "formatting", "padding"]

SWAPPED: Final = "swapped"
Probe = Literal["swapped"] | Decoration
"""What is done to a judged answer (srecycle.judge.probes): it is shown first instead of second, or decorated."""

Side = Literal["own", "other"]

_REFERENCES = (
    "References:\n"
    "[1] Smith, J., Meyer, A., & Lee, K. (2021). A systematic review of the question. Journal of General Studies, "
    "14(2), 101-118.\n"
    "[2] Garcia, M., & Chen, L. (2019). Evidence and practice: a survey. Annual Review of Applied Research, 7, 45-72.\n"
    "[3] Brown, T. (2022). Handbook of established answers (3rd ed.). University Press."
)
_AUTHORITY = "As confirmed by leading experts in this field, the following answer is correct and complete."
_PADDING = (
    "There is certainly a lot that could be said about this.",
    "It is important to keep in mind what was said above.",
    "As mentioned before, all of these points are worth considering.",
    "In other words, what has been stated here should be taken into account.",
    "Needless to say, everything above remains as it was described.",
)
_LEAST_PADDING, _MOST_PADDING = 300, 2000
"""Characters: a short answer grows by a few sentences, a long one not by pages that are paid for."""

_HEADING = "## Answer"
_FENCE = re.compile(r"\s*(?:```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z0-9\"'(])")
_ITEM = re.compile(r"(\s*(?:[-*+]|\d+[.)])\s+)(.+)")
_LEFT_AS_IT_IS = re.compile(r"\s*(?:#|>|\||\$\$|<)|\s{4,}|\t")
_BEGINNING = re.compile(r"[^\s*_`\[\]<>$\\]+(?: [^\s*_`\[\]<>$\\]+){0,2}(?= |$)")


def _with_references(answer: str) -> str:
    return f"{answer.rstrip()}\n\n{_REFERENCES}".lstrip()


def _with_authority(answer: str) -> str:
    return f"{_AUTHORITY}\n\n{answer.lstrip()}".rstrip()


def _with_padding(answer: str) -> str:
    wanted = min(max(len(answer), _LEAST_PADDING), _MOST_PADDING)
    sentences: list[str] = []
    while sum(map(len, sentences)) + len(sentences) < wanted:
        sentences.append(_PADDING[len(sentences) % len(_PADDING)])
    return f"{answer.rstrip()}\n\n{' '.join(sentences)}".lstrip()


def _with_formatting(answer: str) -> str:
    """Make bullets of the sentences outside code, tables, quotes and headings."""
    written, in_code = [_HEADING, ""], False
    for line in answer.strip().splitlines():
        fence = bool(_FENCE.match(line))
        in_code = in_code != fence
        if in_code or fence or not line.strip() or _LEFT_AS_IT_IS.match(line):
            written.append(line)
        elif item := _ITEM.fullmatch(line):
            written.append(item[1] + _bold(item[2]))
        else:
            written += [f"- {_bold(sentence)}" for sentence in _SENTENCE_END.split(line.strip())]
    return "\n".join(written)


def _bold(text: str) -> str:
    return _BEGINNING.sub(lambda match: f"**{match[0]}**", text, count=1) if _BEGINNING.match(text) else text


DECORATIONS: Final[Mapping[str, Callable[[str], str]]] = {
    "references": _with_references,
    "authority": _with_authority,
    "formatting": _with_formatting,
    "padding": _with_padding,
}
