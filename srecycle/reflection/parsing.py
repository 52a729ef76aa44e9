"""Reading a teacher's reply: free text (the critique), then marked segments.

    [New Instruction] ... [End]  [New Answer] ... [End]     the instruction phase
    [Better Answer] ... [End]                               the response phase

Strict about markers, forgiving about their form: any case, spaces inside the brackets, bold or heading marks around
them, a colon after them. A marker counts only at the start of a line (an end marker also at a line's end), so the word
"End" in a sentence is text. Of several complete segments the last counts: teachers echo the format first. A missing
end marker is accepted for the last segment of a reply that its teacher finished ("stop"); a reply cut by its length
limit is never taken as whole. Instruction and answer are taken together or not at all.
"""

import re
from dataclasses import dataclass

from srecycle.rows import OK, Phase

_DECORATION = r"[ \t]*(?:[#>*_]+[ \t]*)?"
_TRAIL = r"[*_]*[ \t]*:?[ \t]*[*_]*"
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
    if finish_reason not in ("stop", ""):
        return Parsed(status="truncated" if finish_reason == "length" else finish_reason)
    if not reply.strip():
        return Parsed(status="empty")
    names = ("New Instruction", "New Answer") if phase == "instruction" else ("Better Answer",)
    segments: list[str] = []
    end, start = len(reply), len(reply)
    for place, name in reversed(list(enumerate(names))):
        found = _last_segment(reply[:end], name, may_lack_end=place == len(names) - 1)
        if found is None:
            return Parsed(status="refused" if _REFUSAL.match(reply) else "unparsed")
        start, text = found
        segments.insert(0, text)
        end = start
    if not all(segments):
        return Parsed(status="empty_segment")
    return Parsed(
        status=OK,
        critique=reply[:start].strip(),
        instruction=segments[0] if phase == "instruction" else "",
        response=segments[-1],
    )


def _last_segment(text: str, name: str, *, may_lack_end: bool) -> tuple[int, str] | None:
    """Return where the last segment of this name starts and what it holds, or None."""
    words = r"[ \t]+".join(map(re.escape, name.split()))
    opening = re.compile(rf"^{_DECORATION}\[[ \t]*{words}[ \t]*\]{_TRAIL}", re.IGNORECASE | re.MULTILINE)
    closing = re.compile(
        rf"^{_DECORATION}\[[ \t]*End[ \t]*\]|\[[ \t]*End[ \t]*\][*_ \t]*$", re.IGNORECASE | re.MULTILINE
    )
    openings = list(opening.finditer(text))
    for start in reversed(openings):
        if stop := closing.search(text, start.end()):
            return start.start(), text[start.end() : stop.start()].strip()
        if may_lack_end:
            return start.start(), text[start.end() :].strip()
    return None
