"""Verifiers: right, wrong, or can't tell; never a guess."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from srecycle.testbed.judgement import VERDICTS, judge
from srecycle.testbed.originals import originals
from srecycle.verifier import NoVerifier, Verdict
from srecycle.verifier.exact import ExactVerifier, final_answer, normalised
from srecycle.verifier.testbed import TestbedVerifier as WorldVerifier

EXACT = ExactVerifier()


def _exact(response: str, reference: str) -> Verdict:
    return EXACT.verdict(instruction="i", input="", response=response, reference=reference)


RIGHT = {
    "the number alone": ("42", "42"),
    "number in the last line": ("6 times 7.\nThat makes 42 in all.", "42"),
    "thousands separators": ("It is 1,234,567.", "1234567"),
    "trailing zeros": ("42.00", "42"),
    "a dollar": ("She pays $42.", "42"),
    "percent": ("42%", "42"),
    "percent of the reference": ("42", "42%"),
    "negative": ("The change is -3.", "-3"),
    "minus sign": ("\u22123", "-3"),
    "zero": ("0.0", "0"),
    "GSM8K's mark": ("6 * 7 = 42\n#### 42\nIs that all?", "#### 42"),
    "a worked reference": ("It is 42.", "6 * 7 = 42\n#### 42"),
    "boxed": (r"So \boxed{42}. Check: 6 * 7.", "42"),
    "boxed fraction": (r"\boxed{\frac{1}{2}}", r"\boxed{\frac{1}{2}}"),
    "answer is": ("The answer is 42. I used 6 and 7.\nThanks!", "42"),
    "abbreviated": ("The answer is St. Moritz", "St. Moritz"),
    "a sum behind the mark": ("Answer: 6 * 7 = 42.", "42"),
    "answer in bold": ("**Answer:** 42\n\nGoodbye", "42"),
    "option": ("B", "B"),
    "option in brackets": ("(b)", "B"),
    "option with text": ("B) Paris", "B"),
    "the answer is an option": ("The answer is (B), since Paris.", "(B)"),
    "text": ("Paris", "Paris"),
    "case, article, full stop": ("The Eiffel Tower.", "eiffel tower"),
    "punctuation": ("don't know", "dont know"),
    "last line": ("Let me think.\n\nParis\n", "paris"),
    "fraction": ("3/4", "3/4"),
    "an article is the answer": ("The", "the"),
}
WRONG = {
    "corrected in the last line": ("It is 42. No, 43.", "42"),
    "another number": ("It is 41.", "42"),
    "right number earlier": ("42 is tempting, but it is 43.", "42"),
    "part of a number": ("142", "42"),
    "digits of a word": ("x42", "42"),
    "decimals": ("42.5", "42"),
    "sign": ("3", "-3"),
    "no number": ("many", "42"),
    "nothing": ("", "42"),
    "another option": ("The answer is (C).", "B"),
    "option's letter in a word": ("Because", "B"),
    "another text": ("London", "Paris"),
    "text in a sentence": ("It is Paris, I think", "Paris"),
    "fraction upside down": ("34", "3/4"),
}


@pytest.mark.parametrize("case", RIGHT)
def test_exact_answer_that_comes_to_the_reference_is_right(case: str) -> None:
    found = _exact(*RIGHT[case])
    assert found.ok is True and "right" in found.told


@pytest.mark.parametrize("case", WRONG)
def test_exact_answer_that_comes_to_something_else_is_wrong(case: str) -> None:
    response, reference = WRONG[case]
    found = _exact(response, reference)
    assert found.ok is False and "wrong" in found.told
    assert ("no result" in found.told) == (not response)


@pytest.mark.parametrize("reference", ["", " \n"])
def test_exact_without_a_reference_cannot_tell(reference: str) -> None:
    assert _exact("42", reference) == Verdict(ok=None, told="")


def test_exact_words_never_give_the_reference_away() -> None:
    assert "4711" not in _exact("It is 12.", "4711").told
    assert '"12"' in _exact("It is 12.", "4711").told
    assert len(_exact("x" * 10_000, "y").told) < 200


@given(st.text(), st.text())
@example("answer:", "answer is")
@example("####", "\\boxed{}")
@example("\u0660", "0")
def test_exact_any_texts_get_a_verdict_and_a_text_equals_itself(response: str, reference: str) -> None:
    assert _exact(response, reference).ok in (True, False, None)
    assert _exact(reference, reference).ok in (True, None)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-10_000, max_value=10_000))
def test_normalised_numbers_are_compared_by_value(number: object) -> None:
    assert normalised(f"{number}") == normalised(f"{number}0") == normalised(f" {number:,} ")
    assert normalised(f"{number}") != normalised(f"{number}1")


@pytest.mark.parametrize("part", ["1", "1,", "1.", "a ", "answer is ", "#", "#### ", "\\boxed{", "{", "-", "$", "\n"])
def test_exact_hostile_response_takes_time_in_line_with_its_length(part: str) -> None:
    started = time.process_time()
    _exact(part * (300_000 // len(part)) + "x", "42")
    assert time.process_time() - started < 3


def test_final_answer_is_the_last_marked_one() -> None:
    assert final_answer("#### 1\n#### 2\nend") == "2"
    assert final_answer("The answer is 1.\nNo: the answer is: 2") == "2"
    assert final_answer(" \n") == ""


def test_testbed_verdict_is_the_judges() -> None:
    seen = set()
    for original in originals(400, 0):
        found = WorldVerifier().verdict(
            instruction=original.instruction, input="", response=original.response, reference=""
        )
        wanted = {"ok": True, "noisy": True, "ambiguous": None}.get(
            judge(original.instruction, original.response), False
        )
        assert found.ok is wanted and found.told
        seen.add(original.label)
    assert seen >= {"ok", "noisy", "ambiguous", "refusal", "mismatched", "wrong_answer"}


def test_testbed_verifier_has_words_for_every_verdict() -> None:
    from srecycle.verifier.testbed import _VERDICTS

    assert set(_VERDICTS) == set(VERDICTS)
    assert len({verdict.told for verdict in _VERDICTS.values()}) == len(VERDICTS)


def test_no_verifier_never_tells() -> None:
    found = NoVerifier().verdict(instruction="i", input="", response="r", reference="r")
    assert (found.ok, found.told) == (None, "")
