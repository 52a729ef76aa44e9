"""What a teacher is: it answers requests with replies, one each, in order.

A reply that could not be had comes back with a reason as its status, never as text. Whether a reply was paid for now or
was found in the ledger is no part of the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.rows import OK, Phase, Version

if TYPE_CHECKING:
    from srecycle.teacher.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to a teacher. Chat teachers read `messages`; recorded and scripted ones the fields beside it.

    `sample` counts equal requests that are to be answered apart, each with a reply of its own.
    """

    row_id: str
    position: int
    phase: Phase
    base: Version
    instruction: str
    response: str
    messages: list[dict[str, str]]
    sample: int = 0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A teacher's reply. `finish_reason` is "stop", "length" or the server's word; tokens and dollars its cost.

    `teacher` names who wrote it, where several teachers share a run. `key` is the ledger's, and `time` (seconds since
    1970) when it was paid for by this ledger's owner; 0 where that is not known.
    """

    text: str
    finish_reason: str = "stop"
    status: str = OK
    paid: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    teacher: str = ""
    key: str = field(default="", compare=False)
    time: float = field(default=0.0, compare=False)


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What earlier calls of a teacher say about the next ones: means over the ledger's replies."""

    replies: int
    characters_per_input_token: float
    output_tokens_per_reply: float
    calls_per_second: float


@component
class Teacher(Component, ABC):
    """Answers requests. `samples` is how many reflections are asked of it for each pair that it is shown."""

    samples: Annotated[int, Field(ge=1)] = 1

    def check(self) -> None:
        """Raise UserError where something that the teacher needs (a key, a file) is missing. Sends nothing.

        Also where its samples would be one text over and over.
        """
        if self.samples > 1 and self.deterministic:
            raise UserError(
                f"teacher.samples={self.samples} at temperature 0 would be the same text {self.samples} times: set a "
                "temperature above 0, or teacher.samples=1"
            )

    @property
    def deterministic(self) -> bool:
        """Whether all samples of a request are the same text."""
        return False

    @property
    def whole(self) -> bool:
        """Whether it wants all of a stage's requests at once (a batch of its own follows from each call)."""
        return False

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars. Teachers that nobody pays cost nothing."""
        return 0.0

    def outstanding(self, requests: Sequence[Request], ledger: "Ledger") -> list[Request]:
        """Return the requests that would be sent and paid for now. Teachers that nobody pays have none."""
        return []

    def rates(self, ledger: "Ledger") -> Rates | None:
        """Return what the ledger says about this teacher's calls, or None where it has none of them."""
        return None

    def interrupt(self) -> None:
        """End what other threads are asking: signals reach the main thread only."""
        return

    def close(self) -> None:
        """Let go of what it holds (a model's memory): the stage is done with it."""
        return

    @abstractmethod
    def replies(self, requests: Sequence[Request], ledger: "Ledger") -> list[Reply]:
        """Return one reply a request, in order. Teachers that are paid look into the ledger first and write to it."""
