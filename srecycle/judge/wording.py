"""What a judge is sent. Pure: texts go in, chat messages come out.

The wordings are data (conf/evaluator); any of them can be a file, `file:PATH`, whose content then stands for it. The
texts to be judged stand between markers of the wording's own that hold `{mark}`: eight letters that are found in none
of the texts, and that nobody who wrote them could know. So a text that says "[End of answer 1]" has not ended, and what
it asks of the judge stays part of it. Equal texts have equal marks, so that a judgment is found in the ledger again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated

from srecycle.judge.base import Messages
from srecycle.placeholders import fill, showing
from srecycle.reflection.prompts import Wording

PairRequest = Annotated[Wording, showing("mark", "question", "answer_1", "answer_2")]
"""A wording that shows two answers to a question."""

GradeRequest = Annotated[Wording, showing("mark", "question", "answer")]
"""A wording that shows one answer to a question."""

_MARK_LETTERS = 8


def messages(system: str, request: str, texts: Mapping[str, str]) -> Messages:
    """Return the messages that ask; `texts` are put in the place of the request's placeholders, and `{mark}` too."""
    content = fill(request, {**texts, "mark": mark(texts.values())})
    opening = [{"role": "system", "content": system}] if system else []
    return [*opening, {"role": "user", "content": content}]


def mark(texts: Iterable[str]) -> str:
    """Return a mark that stands in none of the texts."""
    whole = "\x1f".join(texts)
    found = whole
    while True:
        digest = hashlib.sha256(found.encode("utf-8", "surrogatepass")).hexdigest()
        if (candidate := digest[:_MARK_LETTERS]) not in whole:
            return candidate
        found = digest
