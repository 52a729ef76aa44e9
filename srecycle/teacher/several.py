"""Several teachers in one run, each answering for its share of the rows.

Which teacher a row goes to is a function of `seed` and the row's id: it depends neither on the other rows nor on their
order, is the same in both phases, and a teacher that is added, or given a larger share, takes rows from the others
without moving any between them (weighted rendezvous hashing). Every reply names its teacher.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Annotated

from pydantic import Field

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.teacher.base import Rates, Reply, Request, Teacher
from srecycle.teacher.ledger import Ledger

Share = Annotated[float, Field(ge=0)]


@component
class SeveralTeachers(Teacher):
    """Teachers by name, and their shares of the rows (of any sum; a name without one has 1)."""

    teachers: Annotated[dict[str, Teacher], Field(min_length=1)]
    shares: dict[str, Share] = Field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares of nobody, shares that are all zero, and samples of one teacher alone."""
        if strangers := sorted(self.shares.keys() - self.teachers.keys()):
            raise ValueError(f"shares names {strangers[0]}, but the teachers are {', '.join(self.teachers)}")
        if not any(self._shares.values()):
            raise ValueError("the shares are all 0: some teacher should have rows")
        if sampled := [name for name, teacher in self.teachers.items() if teacher.samples > 1]:
            raise ValueError(f"samples counts for all teachers: set teacher.samples, not that of {sampled[0]}")

    def check(self) -> None:
        """Raise UserError where something that one of the teachers needs is missing."""
        super().check()
        for name, share in self._shares.items():
            if share:
                try:
                    self.teachers[name].check()
                except UserError as error:
                    raise UserError(f"teacher {name}: {error}") from error

    @property
    def deterministic(self) -> bool:
        """Whether one of the teachers gives the same text for all samples."""
        return any(self.teachers[name].deterministic for name, share in self._shares.items() if share)

    @property
    def whole(self) -> bool:
        """Whether one of the teachers wants all of a stage's requests at once."""
        return any(teacher.whole for teacher in self.teachers.values())

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens of rows not yet known cost, in dollars: the mean of the prices, by shares."""
        return sum(
            share * self.teachers[name].price(input_tokens, output_tokens) for name, share in self._shares.items()
        )

    def parts(self, requests: Sequence[Request]) -> dict[str, list[Request]]:
        """Return each teacher's requests, by its name."""
        parts: dict[str, list[Request]] = {name: [] for name in self._shares}
        for request in requests:
            parts[self.teacher_of(request.row_id)].append(request)
        return parts

    def teacher_of(self, row_id: str) -> str:
        """Return the name of a row's teacher. Rows of equal content (`id`, `id-2`, ...) have the same one."""
        content = row_id.partition("-")[0]

        def distance(name: str) -> float:
            share = self._shares[name]
            digest = hashlib.sha256(f"{self.seed}|{content}|{name}".encode()).digest()
            drawn = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
            return -math.log(drawn) / share if share else math.inf

        return min(sorted(self._shares), key=distance)

    def outstanding(self, requests: Sequence[Request], ledger: Ledger) -> list[Request]:
        """Return the requests that any of the teachers would have to be asked now, teacher by teacher."""
        return [
            request
            for name, part in self.parts(requests).items()
            for request in self.teachers[name].outstanding(part, ledger)
        ]

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return the teachers' rates as one, by shares, as far as the ledger knows them. They take turns."""
        known = [
            (share, rates)
            for name, share in self._shares.items()
            if share and (rates := self.teachers[name].rates(ledger)) is not None
        ]
        if not known:
            return None
        total = sum(share for share, _ in known)
        timed = [(share, rates) for share, rates in known if rates.calls_per_second]
        return Rates(
            replies=sum(rates.replies for _, rates in known),
            characters_per_input_token=sum(share * rates.characters_per_input_token for share, rates in known) / total,
            output_tokens_per_reply=sum(share * rates.output_tokens_per_reply for share, rates in known) / total,
            calls_per_second=(
                sum(share for share, _ in timed) / sum(share / rates.calls_per_second for share, rates in timed)
                if timed
                else 0.0
            ),
        )

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Ask each row's own teacher, one teacher after the other."""
        answers: dict[str, list[Reply]] = {}
        for name, part in self.parts(requests).items():
            replies = self.teachers[name].replies(part, ledger) if part else []
            answers[name] = [_named(reply, name) for reply in replies]
        in_order = {name: iter(replies) for name, replies in answers.items()}
        return [next(in_order[self.teacher_of(request.row_id)]) for request in requests]

    def interrupt(self) -> None:
        """End what other threads are asking of any of them."""
        for teacher in self.teachers.values():
            teacher.interrupt()

    def close(self) -> None:
        """Let go of what the teachers hold."""
        for teacher in self.teachers.values():
            teacher.close()

    @cached_property
    def _shares(self) -> dict[str, float]:
        """Every teacher's share, of a sum of 1."""
        shares = {name: self.shares.get(name, 1.0) for name in self.teachers}
        total = sum(shares.values())
        return {name: share / total if total else 0.0 for name, share in shares.items()}


def _named(reply: Reply, name: str) -> Reply:
    return replace(reply, teacher=f"{name}/{reply.teacher}" if reply.teacher else name)
