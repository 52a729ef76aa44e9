"""What a teacher is: it answers requests with replies, one each, in order.

A reply that could not be had comes back with a reason as its status, never as text. Whether a reply was paid for now or
was found in the ledger is no part of the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from srecycle.config import Component, component
from srecycle.rows import OK, Phase, Version

if TYPE_CHECKING:
    from srecycle.teacher.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a teacher. Chat teachers read `messages`; recorded and scripted ones the fields beside it."""

    row_id: str
    position: int
    phase: Phase
    base: Version
    instruction: str
    response: str
    messages: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A teacher's reply. `finish_reason` is "stop", "length" or the server's word; tokens and dollars its cost."""

    text: str
    finish_reason: str = "stop"
    status: str = OK
    paid: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0


@component
class Teacher(Component, ABC):
    """Answers requests."""

    def check(self) -> None:
        """Raise UserError where something that the teacher needs (a key, a file) is missing. Sends nothing."""
        return

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars. Teachers that nobody pays cost nothing."""
        return 0.0

    @abstractmethod
    def replies(self, requests: Sequence[Request], ledger: "Ledger") -> list[Reply]:
        """Return one reply a request, in order. Teachers that are paid look into the ledger first and write to it."""
