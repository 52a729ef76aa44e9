"""Reviews that a judge wrote earlier, read from files. Nobody is asked, nothing is paid.

A record holds a question, the answers as they were shown, and the reply; or two replies, the second (`review_reverse`)
given with the answers exchanged, as in the recorded GPT-4 reviews around the paper. Our own `judgments.parquet` is such
a file too. A case is answered by the record of the same question and answers, in this order, wherever it stands; a case
without one has the status "not_recorded". Identity: the content of the files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from srecycle.config import InputPath, component
from srecycle.data.files import columns_of, digest_of, records, text
from srecycle.errors import UserError
from srecycle.judge.base import Case, Judge
from srecycle.judge.pairs import Pair
from srecycle.rows import content_id, numbered
from srecycle.teacher import Ledger, Reply

_QUESTION = ("question", "instruction", "Instruction", "text", "prompt")
_ANSWERS = (("answer_1", "answer_2"), ("Answer1", "Answer2"), ("answer",))
_REPLY = ("reply", "review")
_REVERSE = "review_reverse"

Shown = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Review:
    """One recorded reply: to which question, about which answers in which order."""

    question: str
    answers: Shown
    reply: str
    finish_reason: str


@component
class ReplayJudge(Judge):
    """Replies from recordings: JSON, JSON Lines or parquet files. Records without a reply are passed over."""

    paths: Annotated[tuple[InputPath, ...], Field(min_length=1)]

    def resolved(self) -> Mapping[str, Any]:
        """Files stand as their content."""
        return {"paths": [digest_of(path, "judge.paths") for path in self.paths]}

    def check(self) -> None:
        """Raise UserError where a file is missing, or holds no reviews."""
        assert self._known is not None

    def replies(self, cases: Sequence[Case], ledger: Ledger) -> list[Reply]:
        """Return what is recorded. An exact duplicate (`id-2`) has the second record of its content, if any."""
        return [self._reply(case) for case in cases]

    def _reply(self, case: Case) -> Reply:
        found = self._known.get(_key(case.question, case.answers))
        if found is None:
            return Reply(text="", finish_reason="", status="not_recorded")
        number = int(case.id.partition("-")[2] or 1)
        return found[min(number, len(found)) - 1]

    @cached_property
    def _known(self) -> Mapping[Shown, list[Reply]]:
        known: dict[Shown, list[Reply]] = {}
        for path in self.paths:
            for one in reviews(path, "judge.paths"):
                reply = Reply(text=one.reply, finish_reason=one.finish_reason)
                known.setdefault(_key(one.question, one.answers), []).append(reply)
        return known


def reviews(path: Path, setting: str | None = None) -> Iterator[Review]:
    """Yield the recorded replies of a file; `setting` named it.

    Raises UserError where a record is none, or the file holds none at all.
    """
    empty = True
    for record, place in _records(path, setting):
        question, answers = _question(record, place), _answers(record, place)
        reply = _first(record, _REPLY, place)
        empty = False
        finish = text(record, "finish_reason", place, default="stop")
        if written := text(record, reply, place):
            yield Review(question=question, answers=answers, reply=written, finish_reason=finish)
        if _REVERSE in record:
            written = text(record, _REVERSE, place)
            yield Review(question=question, answers=answers[::-1], reply=written, finish_reason=finish)
    if empty:
        raise UserError(f"{path} holds no reviews: expected records with a question, answers and a reply")


def recorded_pairs(path: Path) -> list[Pair]:
    """Return the pairs of answers that a file has reviews of in both orders, answer 1 as own, in the file's order.

    Raises UserError where the file holds other records.
    """
    found = []
    for record, place in _records(path):
        answers = _answers(record, place)
        if _REVERSE not in record or len(answers) != 2:
            raise UserError(f"{place} has no {_REVERSE!r}: a pair is reviewed in both orders")
        found.append((_question(record, place), *answers))
    ids = numbered(content_id(*parts) for parts in found)
    return [
        Pair(id=identifier, position=place, question=question, own=own, other=other)
        for place, (identifier, (question, own, other)) in enumerate(zip(ids, found, strict=True))
    ]


def _records(path: Path, setting: str | None = None) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield records with their place. Recorded reviews may stand under `data` of one JSON object."""
    for number, record in enumerate(_unwrapped(path, setting)):
        yield record, f"{path}: record {number}"


def _unwrapped(path: Path, setting: str | None) -> Iterator[dict[str, Any]]:
    if path.suffix == ".json" and path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, RecursionError):
            content = None  # `records` says what is wrong with it
        if isinstance(content, dict) and isinstance(content.get("data"), list):
            for number, record in enumerate(content["data"]):
                if not isinstance(record, dict):
                    raise UserError(f"{path}: record {number} is a JSON {type(record).__name__}: expected an object")
                yield record
            return
    yield from records(path, setting)


def _question(record: Mapping[str, Any], place: str) -> str:
    return text(dict(record), _first(record, _QUESTION, place), place)


def _answers(record: Mapping[str, Any], place: str) -> Shown:
    names = next((names for names in _ANSWERS if names[0] in record), _ANSWERS[0])
    return tuple(text(dict(record), name, place) for name in names)


def _first(record: Mapping[str, Any], names: Sequence[str], place: str) -> str:
    found = next((name for name in names if name in record), None)
    if found is None:
        raise UserError(f"{place} has none of the columns {', '.join(names)}; it has {columns_of(record)}")
    return found


def _key(question: str, answers: Shown) -> Shown:
    return (question.strip(), *(answer.strip() for answer in answers))
