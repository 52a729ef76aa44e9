"""Reading a teacher's reply: free text (the critique), then marked segments.

    [New Instruction] ... [End]  [New Answer] ... [End]     the instruction phase
    [Better Answer] ... [End]                               the response phase

Strict about markers, forgiving about their form: any case, spaces inside the brackets, bold or heading marks around
them, a colon after them. A marker counts only at the start of a line (an end marker also at a line's end), so the word
"End" in a sentence is text. Of several segments the last counts: teachers echo the format first. A segment ends at its
own end marker, never at one behind the next opening marker. A missing end marker is accepted for the last segment of a
reply that its teacher finished ("stop"); a reply cut by its length limit is never taken as whole. Instruction and
answer are taken together or not at all: an echoed instruction is never paired with the real answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from srecycle.rows import OK, Phase

_DECORATION = r"[#>*_ \t]*"
_TRAIL = r"[*_]*(?:[ \t]*:[*_]*)?"  # marks that touch the marker: those after a space are the text's own
_END = re.compile(rf"^{_DECORATION}\[[ \t]*End[ \t]*\]|\[[ \t]*End[ \t]*\][*_ \t\r]*$", re.IGNORECASE | re.MULTILINE)
_FINISHED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "")
"""How servers say that a reply ended by itself; the empty word is a server that says nothing."""

_REFUSAL = re.compile(
    r"\s*(?:i['\u2019]?m (?:very |so )?sorry|i apologi[sz]e|sorry|i can(?:no|['\u2019])t"
    r"|i am (?:unable|not able|sorry)|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a reply says. Texts are empty unless `status` is "ok"; `instruction` only the instruction phase sets."""

    status: str
    critique: str = ""
    instruction: str = ""
    response: str = ""


def parse(phase: Phase, reply: str, finish_reason: str) -> Parsed:
    """Read the segments of a reply.

    `status` is "ok", "empty" (no text), "refused" (no segments, and the words of a refusal), "truncated" (cut by the
    length limit), "unparsed" (a segment is missing) or "empty_segment".
    """
    if finish_reason.lower() not in _FINISHED:
        return Parsed(status="truncated" if finish_reason == "length" else finish_reason)
    if not reply.strip():
        return Parsed(status="empty")
    names = ("New Instruction", "New Answer") if phase == "instruction" else ("Better Answer",)
    found = _last_segments(reply, names)
    if found is None:
        return Parsed(status="refused" if _REFUSAL.match(reply) else "unparsed")
    start, segments = found
    if not all(segments):
        return Parsed(status="empty_segment")
    return Parsed(
        status=OK,
        critique=reply[:start].strip(),
        instruction=segments[0] if phase == "instruction" else "",
        response=segments[-1],
    )


def _last_segments(reply: str, names: Sequence[str]) -> tuple[int, list[str]] | None:
    """Return where the last run of these segments starts and what each holds, or None where one is missing."""
    words = "|".join(r"[ \t]+".join(name.split()) for name in names)
    opening = re.compile(rf"^{_DECORATION}\[[ \t]*({words})[ \t]*\]{_TRAIL}", re.IGNORECASE | re.MULTILINE)
    openings = list(opening.finditer(reply))
    kinds = [" ".join(match[1].lower().split()) for match in openings]
    last = {kind: place for place, kind in enumerate(kinds)}
    places = [last.get(name.lower(), -1) for name in names]
    if -1 in places or places[-1] != len(openings) - 1:
        return None
    segments = []
    for place in places:
        limit = openings[place + 1].start() if place < places[-1] else len(reply)
        stop = _END.search(reply, openings[place].end(), limit)
        if stop is None and place < places[-1]:
            return None
        segments.append(reply[openings[place].end() : stop.start() if stop else limit].strip())
    return openings[places[0]].start(), segments
