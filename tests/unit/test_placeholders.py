"""Placeholders are filled in one pass."""

from hypothesis import given
from hypothesis import strategies as st

from srecycle.placeholders import fill


def test_fill_value_with_braces_is_not_filled_again() -> None:
    assert fill("{a} and {b}", {"a": "{b}", "b": "{a}"}) == "{b} and {a}"


def test_fill_unknown_name_stays() -> None:
    assert fill('{"json": {x}} {y}', {"x": "1"}) == '{"json": 1} {y}'


@given(st.text())
def test_fill_any_value_stands_as_it_is(value: str) -> None:
    assert fill("<{a}>", {"a": value}) == f"<{value}>"
