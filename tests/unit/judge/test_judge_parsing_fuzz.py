"""A judge's reply in any form: scores in range or a reason, in time linear in its length."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srecycle.judge.parsing import Scored, read_grade, read_pair
from srecycle.rows import OK
from tests.linear_time import assert_linear

REASONS = ("empty", "refused", "cut", "out_of_range", "ambiguous", "unparsed")
SHAPES = (
    *("8 9", "8.5/10 and 7", "Assistant 1: 8\nAssistant 2: 7.5", "**Scores: 8, 9**", "Rating: [[7]]", "7 out of 10"),
    *('{"assistant_1": 8, "assistant_2": 7}', '{"scores": [8, 9]}', "[8, 9]", "Model A deserves an 8, Model B a 9."),
    *("1. 8\n2. 7", "| 8 | 9 |", "Assistant (1)'s answer gets 8 of 10; Assistant (2)'s 7", "My final rating is: 6/10."),
)
PIECES = st.sampled_from(
    [
        *(
            "8",
            "10",
            "-1",
            "8.5",
            "1e9",
            "9" * 40,
            "\u0661",
            "\u00b2",
            "/10",
            " out of ten",
            "1-10",
            "3%",
            "[[",
            "]]",
            "(",
        ),
        *(")", "{", "}", '"a":', '{"scores":', "Assistant", "assistant 2", "answer", "'s", "rating", "Final ", "score"),
        *(
            " is ",
            " - ",
            ":",
            ",",
            "|",
            "and",
            "the ",
            "**",
            "`",
            "\n",
            "\r",
            "\x0b",
            "\x85",
            "\u2028",
            " ",
            "\t",
            "\u2212",
        ),
        *(
            "\x01",
            "\x02",
            "\x03",
            "json",
            ">",
            "#",
            "I am sorry",
            "as an AI",
            "\0",
            "\ud800",
            "a",
            "b",
            "one",
            "NaN",
            "1e999",
        ),
    ]
)


@st.composite
def broken(draw: st.DrawFn) -> str:
    """Draw a reply: known shapes with pieces put in, and parts taken out."""
    reply = "\n".join(draw(st.lists(st.sampled_from(SHAPES), max_size=3)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(reply)))
        reply = reply[:place] + draw(PIECES) + reply[place + draw(st.integers(0, 3)) :]
    return reply


def _assert_scores_or_a_reason(reply: str) -> None:
    for finish in ("stop", "length", "content_filter", ""):
        for read, count in ((read_pair, 2), (read_grade, 1)):
            found = read(reply, finish)
            if found.status == OK:
                assert len(found.scores) == count and all(1 <= score <= 10 for score in found.scores)
            else:
                assert found.status in REASONS and found == Scored(status=found.status)


@settings(max_examples=150)
@given(broken() | st.text(max_size=30))
def test_judges_broken_reply_has_scores_in_range_or_a_reason(reply: str) -> None:
    _assert_scores_or_a_reason(reply)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(broken() | st.text(max_size=30))
def test_judges_many_broken_replies_have_scores_in_range_or_a_reason(reply: str) -> None:
    _assert_scores_or_a_reason(reply)


def test_pair_of_many_scores_for_each_assistant_is_ambiguous_in_linear_time() -> None:
    def seconds(count: int) -> float:
        lines = [f"Assistant {1 + number % 2}: {1 + number / 10_000:.4f}" for number in range(count)]
        started = time.process_time()
        assert read_pair("\n".join(lines)) == Scored(status="ambiguous")
        return time.process_time() - started

    assert min(seconds(4000) for _ in range(2)) < 24 * max(seconds(500), 1e-3), "every pair of scores was made"
    assert read_pair("Assistant 1: 8\nAssistant 1: 8.0\nAssistant 2: 7\nSo be it.").scores == (8, 7)


@pytest.mark.parametrize("depth", [100, 900, 5000, 100_000])
def test_pair_of_json_nested_deep_has_no_scores(depth: int) -> None:
    deep = '{"scores":\n' * depth + '{"x": [8, 9, 7]}' + "}" * depth
    assert read_pair(deep).status in ("unparsed", "ambiguous")


def _seconds(before: str, part: str, after: str, length: int) -> float:
    reply = before + part * (length // len(part)) + after
    started = time.process_time()
    read_pair(reply)
    read_grade(reply)
    return time.process_time() - started


def _assert_linear(before: str, part: str, after: str) -> None:
    assert _seconds(before, part, after, 500) < 0.5, "half a second for half a thousand characters"
    assert_linear(lambda length: _seconds(before, part, after, length), 4_000)


_ENDS = st.lists(PIECES, max_size=3).map("".join)
_REPEATED = st.lists(PIECES, min_size=1, max_size=3).map("".join)


@settings(max_examples=15)
@given(_ENDS, _REPEATED, _ENDS)
@example("Rating", " ", "x")
@example("Assistant", " ", "x")
@example("[[7", " ", "x")
@example("", "(", "a 8 9")
@example("8", " ", "of 9")
@example("", "final ", "x")
def test_judges_repeated_pieces_take_time_in_line_with_their_length(before: str, part: str, after: str) -> None:
    _assert_linear(before, part, after)


@pytest.mark.slow
@settings(max_examples=1000)
@given(_ENDS, _REPEATED, _ENDS)
def test_judges_any_repeated_pieces_take_time_in_line_with_their_length(before: str, part: str, after: str) -> None:
    _assert_linear(before, part, after)
