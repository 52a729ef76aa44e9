"""The final answer of a text: found by the shipped patterns, and by any other in bounded time."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from srecycle import answers
from srecycle.answers import SEARCHED, answer_span
from srecycle.errors import UserError
from tests.conftest import ROOT


def _shipped(name: str) -> str:
    return str(yaml.safe_load((Path(ROOT) / f"conf/scorer/{name}.yaml").read_text())["answer_pattern"])


def _found(pattern: str, text: str) -> str | None:
    span = answer_span(pattern, text)
    return text[slice(*span)] if span else None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 = 4.\n#### 4", "4"),
        ("The answer is: 7 apples \nThat is all.", "7 apples"),
        ("**Answer:** 12", "12"),
        ("Answer: one. No, the answer is two.", "two."),
        ("#### 1\n#### 2", "2"),
        ("THE ANSWER IS \U0001f600", "\U0001f600"),
        ("I can't answer this.", None),
        ("The answer is", None),
        ("Answer:\n5", None),
        ("", None),
    ],
)
def test_answer_span_default_pattern_finds_what_is_marked_last(text: str, answer: str | None) -> None:
    assert _found(_shipped("default"), text) == _found(_shipped("reference"), text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9 .", "9"),
        ("start with 3 4 . drop the last : 3 . the answer is 3 .", "3"),
        ("so it is fish lamp .", "fish lamp"),
        ("a . result : 3 3 .", "3 3"),
        ("no full stop", None),
    ],
)
def test_answer_span_testbed_pattern_finds_the_last_sentences_items(text: str, answer: str | None) -> None:
    assert _found(_shipped("testbed"), text) == answer


def test_answer_span_is_looked_for_at_the_end_of_a_text() -> None:
    tail = "x" * SEARCHED
    assert _found("(#+)", f"##{tail[2:]}") == "##"
    assert _found("(#+)", f"##{tail}") is None
    assert _found("(b)", f"{tail}ab c") == "b"


@pytest.mark.parametrize(("pattern", "text"), [("a(b)?", "a"), ("a( *)c", "a  c"), ("a()", "a")])
def test_answer_span_blank_answer_is_none(pattern: str, text: str) -> None:
    assert answer_span(pattern, text) is None


def test_answer_span_pattern_without_end_is_an_error_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_SECONDS", 0.05)
    with pytest.raises(UserError, match=r"did not come to an end.*3000 characters"):
        answer_span("(?:a|aa)+(b)", "a" * 3000)


@given(st.text())
def test_answer_span_stands_inside_its_text_and_is_not_blank(text: str) -> None:
    for name in ("default", "testbed"):
        span = answer_span(_shipped(name), f"{text} answer: {text}")
        if span is not None:
            found = f"{text} answer: {text}"[slice(*span)]
            assert found and found == found.strip()
