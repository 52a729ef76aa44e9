"""Reading a teacher's reply: free text (the critique), then marked segments.

    [New Instruction] ... [End]  [New Answer] ... [End]     the instruction phase
    [Better Answer] ... [End]                               the response phase

Strict about markers, forgiving about their form. A marker stands at the start of a line (an end marker also at a line's
end), so the word "End" in a sentence is text; so is a marker in a closed code block, unless the block wraps them all.
Any case, spaces, bold, headings, list numbers and a colon are forgiven, as are "[End of Answer]" and "[/New Answer]";
markers that lost their brackets count where the reply has none with brackets and names each segment once.

Segments form sets (an instruction and its answer, or an answer), and the last set that says something counts: teachers
echo the format first. It is taken whole or not at all, never completed out of another set:

- a segment ends at its own end marker. Two of them with text between leave open where it ends: unparsed;
- a missing end marker is accepted at the end of a reply that its server says was finished, and nowhere else;
- a reply cut by its length limit is never taken, however whole it looks.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from srecycle.reflection.criteria import scores
from srecycle.rows import OK, CriterionScore, Phase

NAMES: Mapping[Phase, tuple[str, ...]] = {
    "instruction": ("New Instruction", "New Answer"),
    "response": ("Better Answer",),
}
"""The segments of each phase's set, in order; the last is the answer."""

_FINISHED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence")
"""How servers say that a reply ended by itself. A server that says nothing (an empty word) may have cut it."""

_CUT = ("length", "max_tokens", "max_output_tokens", "model_length")
_STOPPED = {"content_filter": "content_filter"}

# Possessive quantifiers (`*+`): without them a long run of marks or spaces is tried in every way to split it.
_LINE_START = r"^[#>*_ \t]*+(?:(?:\d{1,2}[.)]|[-+\u2022])[ \t]++[#*_]*+)?"
_TRAIL = r"[*_]*(?:[ \t]*:[*_]*)?"  # marks that touch the marker: those after a space are the text's own
_GAP = r"[ \t_-]*+"
_PART = rf"(?:(?:new|better){_GAP})?(instruction|answer)"
_CLOSING = rf"(?:/[ \t]*+)?end(?:[ \t_-]++(?:of[ \t_-]++)?(?:the[ \t_-]++)?{_PART})?|/[ \t]*+{_PART}"
_END_MARK = rf"\\?\[{{1,2}}[ \t]*+(?:{_CLOSING})[ \t]*+[.:]?\\?\]{{1,2}}"
_END = re.compile(rf"^[#>*_ \t]*+{_END_MARK}|{_END_MARK}[*_ \t\r]*+$", re.IGNORECASE | re.MULTILINE)
_BARE_END = re.compile(rf"^[> \t]*+[#*_]++[ \t]*+(?:{_CLOSING})[*_]*+[.:]?[*_ \t\r]*+$", re.IGNORECASE | re.MULTILINE)
_FENCE = re.compile(r"^[ \t]*+(`{3,}|~{3,})[ \t]*+([^`\n]*+)$", re.MULTILINE)
_FENCE_AT_END = re.compile(r"^[ \t]*+(?:`{3,}|~{3,})[^`\n]*+\Z", re.MULTILINE)

_REFUSAL = re.compile(
    r"\s*(?:i['\u2019]?m (?:very |so |really )?sorry|i apologi[sz]e|sorry\b|unfortunately, i (?:can|am)"
    r"|i (?:can(?:no|['\u2019])t|won['\u2019]t|will not|must decline)\b"
    r"|i(?:['\u2019]m| am) (?:unable|not able|sorry|not comfortable)|as an ai\b)",
    re.IGNORECASE,
)
_REFUSED_ANSWER = re.compile(
    r"(?:[^.!\n]{0,60}[.!,;:]\s*)?(?:but\s+|as an ai[^,\n]{0,40},\s*)?i(?:['\u2019]m| am)?\s+"
    r"(?:can(?:no|['\u2019])t|won['\u2019]t|unable to|not able to|must decline to)\s+(?:\w+\s+)?"
    r"(?:help\b(?! but)|assist|comply|fulfil|provide|answer|engage)",
    re.IGNORECASE,
)
_LONGEST_REFUSAL = 300
"""A longer answer says more than no."""

_PLACEHOLDER = re.compile(
    r"[<\[({\s]*your (?:new |better |complete )*(?:instruction|answer)(?: here)?[>\])}.\s]*"
    r"|[<\[({]\s*(?:the |a )?(?:new |better |complete )*(?:instruction|answer)(?: here)?\s*[>\])}]"
    r"|[<\[({\s]*(?:\.{3}|\u2026)[>\])}\s]*",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What a reply says. Texts are empty unless `status` is "ok"; `instruction` only the instruction phase sets."""

    status: str
    critique: str = ""
    instruction: str = ""
    response: str = ""
    criteria: tuple[CriterionScore, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Segment:
    """A segment: where its opening marker starts, its text, and whether its end is marked, missing or unclear."""

    name: str
    start: int
    text: str
    end: Literal["marked", "missing", "unclear"]
    is_last: bool


_Set = list[_Segment]


def parse(
    phase: Phase, reply: str, finish_reason: str, *, criteria: Sequence[str] = (), placeholders: Collection[str] = ()
) -> Parsed:
    """Read the segments of a reply, and its critique's scores of `criteria`. Takes any text, in time linear in it.

    `placeholders` are the texts (casefolded) that stand for instruction and answer where the request shows its format.
    `status` is "ok", "empty" (no text), "refused", "truncated" (cut by the length limit), "unparsed" (a marker is
    missing or out of place), "empty_segment", "echoed" (a segment repeats its placeholder), "content_filter" or, where
    the server stopped it for another reason, "stopped": its own word is no status, since it can be any text.
    """
    finish = finish_reason.lower()
    if finish and finish not in _FINISHED:
        return Parsed(status="truncated" if finish in _CUT else _STOPPED.get(finish, "stopped"))
    if not reply.strip():
        return Parsed(status="empty")
    segments, is_wrapped = _segments(reply, NAMES[phase])
    if not segments:
        return Parsed(status="refused" if _REFUSAL.match(reply) else "unparsed")
    if segments[0].name != NAMES[phase][0]:
        return Parsed(status="unparsed")  # answers first: the next instruction would get this one's
    needs_end = is_wrapped or finish not in _FINISHED
    judged = [(_status(one, NAMES[phase], needs_end, placeholders), one) for one in _sets(segments, NAMES[phase][0])]
    said = [pair for pair in judged if pair[0] not in ("empty_segment", "echoed")]
    status, taken = (said or judged)[-1]
    if status != OK:
        return Parsed(status=status)
    critique = reply[: taken[0].start].strip()
    if is_wrapped:
        critique = _FENCE_AT_END.sub("", critique).strip()
    return Parsed(
        status=OK,
        critique=critique,
        instruction=taken[0].text if phase == "instruction" else "",
        response=taken[-1].text,
        criteria=scores(critique, criteria).given,
    )


def form(phase: Phase) -> str:
    """Return the format of a phase's segments, as a request shows it."""
    return "\n".join(f"[{name}]\nyour {name.rpartition(' ')[2].lower()}\n[End]" for name in NAMES[phase])


def segment_texts(phase: Phase, text: str) -> list[str]:
    """Return what stands in the segments of a text, a request that shows the format for example."""
    return [segment.text for segment in _segments(text, NAMES[phase])[0]]


def _sets(segments: Sequence[_Segment], first: str) -> list[_Set]:
    """Split the segments into sets: each begins with the first name of its phase."""
    sets: list[_Set] = []
    for segment in segments:
        if segment.name == first or not sets:
            sets.append([])
        sets[-1].append(segment)
    return sets


def _status(taken: _Set, names: Sequence[str], needs_end: bool, placeholders: Collection[str]) -> str:
    """Judge a set. One that names a segment twice may be two sets that lost a marker."""
    if [one.name for one in taken] != list(names):
        return "unparsed"
    *before, answer = taken
    texts = [one.text for one in taken]
    if not all(texts):
        return "empty_segment"
    is_open = answer.end == "missing" and answer.is_last and not needs_end
    if any(one.end != "marked" for one in before) or not (answer.end == "marked" or is_open):
        return "unparsed"
    if any(text.casefold() in placeholders or _PLACEHOLDER.fullmatch(text) for text in texts):
        return "echoed"
    is_refusal = len(answer.text) <= _LONGEST_REFUSAL and _REFUSED_ANSWER.match(answer.text)
    return "refused" if is_refusal else OK


def _segments(reply: str, names: Sequence[str]) -> tuple[list[_Segment], bool]:
    """Return the reply's segments of these names, and whether one code block wraps them."""
    ends = list(_END.finditer(reply))
    openings = _openings(reply, names)
    if not openings:
        bare_ends = sorted([*ends, *_BARE_END.finditer(reply)], key=lambda match: match.start())
        return _cut(reply, _bare_openings(reply, names), bare_ends), False
    blocks = _code_blocks(reply)
    if outside := _outside(openings, blocks):
        return _cut(reply, outside, _outside(ends, blocks)), False
    found = _cut(reply, openings, ends)
    # Where the wrapper's own fences can't be told from those of a text, an end marker may be the text's.
    return [one if _is_balanced(one.text) else replace(one, end="unclear") for one in found], True


def _openings(reply: str, names: Sequence[str]) -> list[re.Match[str]]:
    pattern = rf"{_LINE_START}\\?\[{{1,2}}[ \t]*+({_words(names)})[ \t]*+:?[ \t]*+\\?\]{{1,2}}{_TRAIL}"
    return list(re.finditer(pattern, reply, re.IGNORECASE | re.MULTILINE))


def _bare_openings(reply: str, names: Sequence[str]) -> list[re.Match[str]]:
    """Return opening markers without brackets: a heading or bold words alone on a line, or words and a colon.

    None where the segments are not named once each: prose speaks of a "new answer" too.
    """
    marked = rf"^[> \t]*+[#*_]++[ \t]*+({_words(names)})[*_]*+[ \t\r]*+$"
    with_colon = rf"{_LINE_START}({_words(names)})[*_]*+[ \t]*+:[*_]*+"
    found = [
        *re.finditer(marked, reply, re.IGNORECASE | re.MULTILINE),
        *re.finditer(with_colon, reply, re.IGNORECASE | re.MULTILINE),
    ]
    found.sort(key=lambda match: match.start())
    return found if len(found) == len({_name(one) for one in found}) == len(names) else []


def _words(names: Sequence[str]) -> str:
    # Letters of ASCII only: without case, a long s and a dotless i would be letters of a name too.
    return rf"(?a:{'|'.join(_GAP.join(name.split()) for name in names)})"


def _name(opening: re.Match[str]) -> str:
    """Return a marker's name as it stands in `NAMES`."""
    said = re.sub(r"[ \t_-]", "", opening[1]).lower()
    return next(name for names in NAMES.values() for name in names if name.replace(" ", "").lower() == said)


def _cut(reply: str, openings: Sequence[re.Match[str]], ends: Sequence[re.Match[str]]) -> list[_Segment]:
    """Cut the reply into segments at these markers."""
    segments, place = [], 0
    for number, opening in enumerate(openings):
        is_last = number + 1 == len(openings)
        limit = len(reply) if is_last else openings[number + 1].start()
        own = []
        while place < len(ends) and ends[place].start() < limit:
            if ends[place].start() >= opening.end():
                own.append(ends[place])
            place += 1
        name = _name(opening)
        segments.append(
            _Segment(
                name=name,
                start=opening.start(),
                text=reply[opening.end() : own[0].start() if own else limit].strip(),
                end=_end(reply, name, own),
                is_last=is_last,
            )
        )
    return segments


def _end(reply: str, name: str, own: Sequence[re.Match[str]]) -> Literal["marked", "missing", "unclear"]:
    if not own:
        return "missing"
    named = {part.lower() for end in own for part in end.groups() if part}
    between = any(reply[one.end() : other.start()].strip() for one, other in pairwise(own))
    return "unclear" if between or named - {name.rpartition(" ")[2].lower()} else "marked"


def _code_blocks(reply: str) -> list[tuple[int, int]]:
    """Return where the closed fenced code blocks start and end. One that is never closed is no block."""
    blocks = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(reply):
        # A closing fence says nothing more, but for an end marker behind it on its line.
        info = _END.sub("", fence[2]).strip()
        if opened is None:
            opened = fence
        elif not info and fence[1].startswith(opened[1]):
            blocks.append((opened.start(), fence.end(1)))
            opened = None
    return blocks


def _outside(matches: Sequence[re.Match[str]], blocks: Sequence[tuple[int, int]]) -> list[re.Match[str]]:
    def walk() -> Iterator[re.Match[str]]:
        place = 0
        for match in matches:
            while place < len(blocks) and blocks[place][1] <= match.start():
                place += 1
            if place == len(blocks) or match.start() < blocks[place][0]:
                yield match

    return list(walk())


def _is_balanced(text: str) -> bool:
    return len(_FENCE.findall(text)) % 2 == 0
