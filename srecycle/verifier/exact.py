"""The verifier for answers that can be compared: a number, an option's letter, or a short text.

A response is right where its final answer equals the reference's, both normalised. The final answer is what follows the
last `####`, stands in the last `\\boxed{}`, or follows the last "answer is" or "answer:"; failing these, a number is
looked for as the last number of the last line, an option as its letter alone, and a text as the whole last line.
Normalised means: numbers by value, without thousands separators, currency and percent signs; options by letter; texts
in lower case without articles, punctuation and spare spaces (as in SQuAD's exact match, arXiv:1606.05250).
"""

import re
import string
import unicodedata
from decimal import Decimal, InvalidOperation

from srecycle.config import component
from srecycle.verifier.base import Verdict, Verifier

_MARKED = (
    re.compile(r"####[ \t]*+([^\n]+)"),
    re.compile(r"\\boxed\{([^{}\n]*+(?:\{[^{}\n]*+\}[^{}\n]*+)*+)\}"),
    re.compile(r"\banswer(?:[ \t]+is\b[ \t]*:?|[ \t]*\**:)[ \t]*+([^\n]+)", re.IGNORECASE),
)
_NUMBER = re.compile(
    r"(?<![\w.])[-\u2212+]?(?:[$\u20ac\u00a3][ \t]?)?(?:\d{1,3}(?:,\d{3})++|\d++)(?:\.\d++)?+(?![\d.]*+\w|\d)"
)
_OPTION = re.compile(r"[(\[]?([A-Ja-j])(?:[)\].:]|$)")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SENTENCE_END = re.compile(r"[.!?](?=\s)")
_LONGEST_SHOWN = 80


@component
class ExactVerifier(Verifier):
    """Compares a response's final answer with the reference; can't tell where there is no reference."""

    def verdict(self, *, instruction: str, input: str, response: str, reference: str) -> Verdict:
        """Return whether the response comes to the reference's answer."""
        wanted = final_answer(reference)
        if not wanted:
            return Verdict(ok=None)
        found = [_in_kind(one, wanted) for one in _readings(response)]
        if normalised(wanted) in map(normalised, found):
            return Verdict(ok=True, told="Compared with the known result, this answer is right.")
        shown = found[-1] if len(found[-1]) <= _LONGEST_SHOWN else f"{found[-1][:_LONGEST_SHOWN]}..."
        comes_to = f'it comes to "{shown}"' if shown else "it comes to no result"
        return Verdict(ok=False, told=f"Compared with the known result, this answer is wrong: {comes_to}.")


def final_answer(text: str) -> str:
    """Return what a text comes to: its marked answer, else its last line that is not blank; "" where it has none."""
    return _readings(text)[0]


def _readings(text: str) -> tuple[str, ...]:
    """Return the final answer; what follows a mark on its line may be a sentence of it, or the answer and more."""
    for pattern in _MARKED:
        if found := pattern.findall(text):
            whole = str(found[-1]).strip()
            return whole, _SENTENCE_END.split(whole, maxsplit=1)[0]
    return (text.strip().rpartition("\n")[2].strip(),)


def normalised(answer: str) -> str:
    """Return the form in which two answers are compared."""
    plain = unicodedata.normalize("NFKC", answer).strip().strip("*_`$ \t")
    if (value := _value(plain)) is not None:
        return f"{value.normalize():f}" if value else "0"
    if option := _OPTION.fullmatch(plain):
        return option[1].upper()
    words = [_word(word) for word in plain.casefold().split()]
    # A text that is nothing but articles and punctuation is compared as it stands.
    return " ".join(word for word in words if word not in ("", "a", "an", "the")) or plain.casefold()


def _word(word: str) -> str:
    """Drop a word's punctuation; inside what holds digits (3/4, 10:30, x^2) it has a meaning."""
    if any(letter.isdigit() for letter in word):
        return word.rstrip(".,;:!?")
    return word.translate(_NO_PUNCTUATION)


def _in_kind(answer: str, wanted: str) -> str:
    """Narrow an answer to the kind of the reference: the last number in it, or the option that it opens with."""
    if _value(wanted) is not None:
        found = _NUMBER.findall(unicodedata.normalize("NFKC", answer))
        return found[-1] if found else answer
    if _OPTION.fullmatch(wanted):
        opening = _OPTION.match(answer.strip("*_` \t"))
        return opening[1] if opening else answer
    return answer


def _value(text: str) -> Decimal | None:
    """Return the number that a text is, and nothing else; None where it is none."""
    plain = text.strip().rstrip(".").strip().removesuffix("%").strip()
    if not _NUMBER.fullmatch(plain):
        return None
    try:
        return Decimal(re.sub(r"[,$\u20ac\u00a3 \t]", "", plain).replace("\u2212", "-"))
    except InvalidOperation:
        return None
