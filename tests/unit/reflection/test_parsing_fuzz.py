"""Replies of real shape, broken in every way: a reason or texts of the reply, in time linear in its length."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srecycle.reflection.parsing import Parsed, parse, segment_texts
from srecycle.rows import PHASES, Phase
from tests.linear_time import assert_linear

REPLIES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "replies.yaml").read_text(encoding="utf-8"))
REASONS = ("empty", "refused", "unparsed", "empty_segment", "echoed")
MARKERS = (
    *("[New Instruction]", "[New Answer]", "[Better Answer]", "[End]", "[/New Answer]", "[End of the New Answer]"),
    *("**New Answer**", "## Better Answer:", "New Instruction:", "[[End]]", "\\[End\\]", "> [End]", "[Score] a: 7"),
)
LOOKALIKES = (
    *(
        "[New \u0131nstruction]",
        "[New In\u017ftruction]",
        "[New An\u017fwer]",
        "[Better An\u017fwer]",
        "[/New An\u017fwer]",
    ),
    *(
        "[N\u0435w Answer]",
        "\uff3bNew Answer\uff3d",
        "[New\u00a0Answer]",
        "[New\u200bAnswer]",
        "[\uff25nd]",
        "[END\u0130]",
    ),
)
SCRAPS = (
    "```",
    "~~~",
    "\n",
    "\n\n",
    "\r\n",
    "\u2028",
    "\0",
    "\ud800",
    "\ufeff",
    "[",
    "]",
    "**",
    "# ",
    "1. ",
    ": ",
    "x",
)
PIECES = st.sampled_from(MARKERS + LOOKALIKES + SCRAPS) | st.text(max_size=8)


@st.composite
def broken(draw: st.DrawFn) -> tuple[Phase, str]:
    """Draw a phase and a reply of its corpus with lines repeated, moved, cut, replaced and put in."""
    case = draw(st.sampled_from(REPLIES))
    lines = str(case["reply"]).splitlines()
    for _ in range(draw(st.integers(1, 6))):
        place, other = (draw(st.integers(0, max(0, len(lines) - 1))) for _ in range(2))
        how = draw(st.sampled_from(["repeat", "move", "drop", "cut", "put", "replace", "join"]))
        if not lines or how == "put":
            lines.insert(place, draw(PIECES))
        elif how == "repeat":
            lines.insert(other, lines[place])
        elif how == "move":
            lines.insert(other, lines.pop(place))
        elif how == "drop":
            del lines[place]
        elif how == "cut":
            lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
        elif how == "replace":
            lines[place] = draw(PIECES)
        else:
            lines[place] += draw(PIECES)
    return draw(st.sampled_from([case["phase"], *PHASES])), draw(st.sampled_from(["\n", "\n", "\n", ""])).join(lines)


def _assert_read_whole_or_not_at_all(phase: Phase, reply: str, finish: str) -> None:
    parsed = parse(phase, reply, finish, criteria=("a",))
    if parsed.status == "ok":
        assert parsed.response and parsed.response in reply and parsed.critique in reply
        assert bool(parsed.instruction) == (phase == "instruction") and parsed.instruction in reply
    else:
        assert parsed.status in REASONS and parsed == Parsed(status=parsed.status)
    assert all(text in reply for text in segment_texts(phase, reply))


_FUZZED = given(broken(), st.sampled_from(["stop", ""]))


@settings(max_examples=200)
@_FUZZED
def test_parse_broken_reply_is_read_whole_or_not_at_all(drawn: tuple[Phase, str], finish: str) -> None:
    _assert_read_whole_or_not_at_all(*drawn, finish)


@pytest.mark.slow
@settings(max_examples=20_000)
@_FUZZED
def test_parse_many_broken_replies_are_read_whole_or_not_at_all(drawn: tuple[Phase, str], finish: str) -> None:
    _assert_read_whole_or_not_at_all(*drawn, finish)


@pytest.mark.parametrize("letters", [("\u0131nstruction", "answer"), ("In\u017ftruction", "An\u017fwer")])
def test_parse_marker_with_letters_that_fold_into_its_own_is_text(letters: tuple[str, str]) -> None:
    names = [f"New {one}" for one in letters]
    reply = "\n".join(f"[{name}]\nx\n[End]" for name in names)
    assert parse("instruction", reply, "stop").status == "unparsed"
    bare = "\n".join(f"**{name}**\nx\n**End**" for name in names)
    assert parse("instruction", bare, "stop").status == "unparsed"
    assert segment_texts("instruction", f"[New {letters[0]}]\nx\n[End]") == []


def _seconds(before: str, part: str, after: str, length: int) -> float:
    reply = before + part * (length // len(part)) + after
    started = time.process_time()
    for phase in PHASES:
        parse(phase, reply, "stop", criteria=("a", "b"))
    return time.process_time() - started


def _assert_linear(before: str, part: str, after: str) -> None:
    assert_linear(lambda length: _seconds(before, part, after, length), 8_000)


_ENDS = st.lists(PIECES, max_size=3).map("".join)
_REPEATED = st.lists(PIECES, min_size=1, max_size=3).map("".join).filter(bool)


@settings(max_examples=15)
@given(_ENDS, _REPEATED, _ENDS)
@example("[New Answer]", " \t", "x\n[End]")
@example("", "[End of the ", "")
@example("[New Answer]\n", "x\n[End]\n", "y")
def test_parse_repeated_pieces_take_time_in_line_with_their_length(before: str, part: str, after: str) -> None:
    _assert_linear(before, part, after)


@pytest.mark.slow
@settings(max_examples=1000)
@given(_ENDS, _REPEATED, _ENDS)
def test_parse_any_repeated_pieces_take_time_in_line_with_their_length(before: str, part: str, after: str) -> None:
    _assert_linear(before, part, after)
