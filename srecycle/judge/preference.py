"""Which of two outputs a judge prefers: the words that ask, and the reading of the reply. Pure.

A reply's first line names the better one: `1`, `2`, `tie`, `Output (a)`, `model_2`. The forms that AlpacaEval's own
wordings ask for are read too: the identifiers m and M, and a reply that begins with a ranking
(`[{'model': 'model_1', 'rank': 1}, ...]`). Where the first line is none of these, all lines that are must agree; words
in sentences are never a choice.

Reasons why there is none: `empty`, `refused`, `cut`, `ambiguous` (readings that differ), `unparsed`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from srecycle.judge.base import Messages
from srecycle.judge.parsing import finished, why_none
from srecycle.judge.wording import mark, messages
from srecycle.placeholders import fill, showing
from srecycle.reflection.prompts import Wording
from srecycle.rows import OK

PreferenceRequest = Annotated[Wording, showing("instruction", "output_1", "output_2")]
"""A wording that shows two outputs, by AlpacaEval's placeholders; in its ChatML form it has its system message too."""

_MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)

_WHO = r"(?:output|answer|response|assistant|model|candidate)"
_CHOICE = re.compile(
    rf"(?:the\s+)?(?:better|best|winner|choice|preferred)?\s*(?:{_WHO})?\s*(?:is\b)?\s*[:=]?\s*(?:{_WHO})?[\s_#]*"
    r"[(\[\"']?(1|2|one|two|a|b|tie|draw|equal|neither)[)\]\"']?(?:\s+is\s+better)?\s*[.!]?",
    re.IGNORECASE | re.ASCII,
)
_NAMED: Final = {"1": 1.0, "one": 1.0, "a": 1.0, "2": 2.0, "two": 2.0, "b": 2.0}
_EITHER: Final = 1.5
_IDENTIFIERS: Final = {"m": 1.0, "M": 2.0}
_RANK = re.compile(r"['\"]model['\"]\s*:\s*['\"]model_([12])['\"]\s*,\s*['\"]rank['\"]\s*:\s*(\d+)", re.ASCII)
_JSON = re.compile(r"(?:json|python)?\s*[\[{]")
"""How a reply begins that is a ranking (fences are taken away): elsewhere one may be quoted."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a reply prefers: 1 the output shown first, 2 the second, 1.5 neither; or why nothing (`status`)."""

    status: str = OK
    preferred: float | None = None


def ask(system: str, request: str, texts: Mapping[str, str]) -> Messages:
    """Return the messages that ask. A ChatML request is split before it is filled, and takes no `system`."""
    parts = _MESSAGE.findall(request)
    if not parts:
        return messages(system, request, texts)
    values = {**texts, "mark": mark(texts.values())}
    return [{"role": role, "content": fill(content.strip(), values)} for role, content in parts]


def read_choice(reply: str, finish_reason: str = "stop") -> Choice:
    """Return what a reply prefers. `finish_reason` is the server's: "length" says that the reply was cut."""
    if reply.strip() in _IDENTIFIERS:  # as a whole reply only: one token is all that AlpacaEval 2 asks for
        return Choice(preferred=_IDENTIFIERS[reply.strip()])
    text, lines = finished(reply, finish_reason)
    found = [_named(line) for line in lines]
    if found and found[0] is not None:
        return Choice(preferred=found[0])
    if _JSON.match(text) and (ranks := _RANK.findall(reply)):
        return _ranked(ranks)
    choices = {one for one in found if one is not None}
    if len(choices) > 1:
        return Choice(status="ambiguous")
    return Choice(preferred=choices.pop()) if choices else Choice(status=why_none(reply, finish_reason))


def _ranked(ranks: list[tuple[str, str]]) -> Choice:
    """Read a ranking: the rank of model_1 is the preference. Both models must have one, and not the same."""
    found = {(int(model), int(rank)) for model, rank in ranks}
    if found == {(1, 1), (2, 2)}:
        return Choice(preferred=1.0)
    return Choice(preferred=2.0) if found == {(1, 2), (2, 1)} else Choice(status="ambiguous")


def _named(line: str) -> float | None:
    match = _CHOICE.fullmatch(line)
    return _NAMED.get(match[1].lower(), _EITHER) if match else None
