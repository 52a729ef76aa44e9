"""Who judges answers: a teacher that is asked (any of them), or reviews recorded earlier.

In: cases, each one judgment to be made: a question, the answers in the order in which they are shown, and the chat
messages that ask. Out: one reply each, in order. A judgment that could not be had comes back with a reason as its
status. Wordings and parsing belong to those who ask (srecycle.judge.wording, srecycle.judge.parsing): a judge is only
who replies.

    with asking(judge, work) as ask:                   # ledger, budget, bill, progress
        replies = ask(cases, "pairwise vicuna")
    quoted(judge, cases, store)                        # srecycle.judge.quote: what that would cost; nobody is asked
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.progress import metered
from srecycle.reflection.bill import Bill
from srecycle.stage import Work
from srecycle.teacher import Ledger, Rates, Reply, Request, Teacher

Messages = list[dict[str, str]]

_FAILED = "teacher_failed"
_AT_ONCE = 512
"""Cases that are handed to the judge together: all of a large set would be hundreds of megabytes of text."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One judgment to be made.

    `id` is the question's (content and a running number for exact duplicates), `position` its place in its set.
    `answers` are the texts as shown, in order: two where they are compared, one where it is graded.
    """

    id: str
    position: int
    question: str
    answers: tuple[str, ...]
    messages: Messages


@component
class Judge(Component, ABC):
    """Replies to cases."""

    def check(self) -> None:
        """Raise UserError where something that the judge needs (a key, a file) is missing. Sends nothing."""
        return

    @property
    def whole(self) -> bool:
        """Whether it wants all cases at once (a batch of its own follows from each call)."""
        return False

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars."""
        return 0.0

    def outstanding(self, cases: Sequence[Case], ledger: Ledger) -> list[Case]:
        """Return the cases that would be sent and paid for now, equal ones once."""
        return []

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return what the ledger says about this judge's calls, or None where it has none of them."""
        return None

    def interrupt(self) -> None:
        """End what other threads are asking."""
        return

    def close(self) -> None:
        """Let go of what it holds (a model's memory)."""
        return

    @abstractmethod
    def replies(self, cases: Sequence[Case], ledger: Ledger) -> list[Reply]:
        """Return one reply a case, in order."""


@component
class TeacherJudge(Judge):
    """A teacher component that judges: a chat endpoint, OpenAI's batches, a model in this process, several of them.

    A judge is to say the same twice: the teacher must be deterministic (temperature 0), or have no temperature at all
    (null, for models that take none).
    """

    teacher: Teacher

    def __post_init__(self) -> None:
        """Refuse sampled judgments."""
        for one in (self.teacher, *getattr(self.teacher, "teachers", {}).values()):
            if temperature := getattr(one, "temperature", None):
                raise ValueError(f"teacher.temperature={temperature:g}: a judge should judge at temperature 0")
        if self.teacher.samples > 1:
            raise ValueError(f"teacher.samples={self.teacher.samples}: a judge is asked once for each judgment")

    def check(self) -> None:
        """Raise UserError where the teacher lacks something."""
        self.teacher.check()

    @property
    def whole(self) -> bool:
        """Whether the teacher wants all cases at once."""
        return self.teacher.whole

    def price(self, input_tokens: int, output_tokens: int) -> float:
        """Return what so many tokens cost, in dollars."""
        return self.teacher.price(input_tokens, output_tokens)

    def outstanding(self, cases: Sequence[Case], ledger: Ledger) -> list[Case]:
        """Return the cases that the teacher would have to be asked now."""
        requests = _requests(cases)
        by_request = {id(request): one for request, one in zip(requests, cases, strict=True)}
        return [by_request[id(request)] for request in self.teacher.outstanding(requests, ledger)]

    def rates(self, ledger: Ledger) -> Rates | None:
        """Return the teacher's rates: its calls of other kinds count among them."""
        return self.teacher.rates(ledger)

    def interrupt(self) -> None:
        """End what the teacher's threads are asking."""
        self.teacher.interrupt()

    def close(self) -> None:
        """Have the teacher let go of what it holds."""
        self.teacher.close()

    def replies(self, cases: Sequence[Case], ledger: Ledger) -> list[Reply]:
        """Answer from the ledger, and ask the teacher for the rest."""
        return self.teacher.replies(_requests(cases), ledger)


def _requests(cases: Sequence[Case]) -> list[Request]:
    return [
        Request(
            row_id=one.id,
            position=one.position,
            phase="response",
            base="original",
            instruction=one.question,
            response=one.answers[0] if one.answers else "",
            messages=one.messages,
        )
        for one in cases
    ]


def said(reply: Reply | None) -> dict[str, str]:
    """Return the columns in which tables of judgments keep a reply; empty ones where there is none."""
    reply = reply or Reply(text="", finish_reason="")
    return {"reply": reply.text, "finish_reason": reply.finish_reason, "judge": reply.teacher}


Ask = Callable[[Sequence[Case], str], list[Reply]]
"""Asks the judge: cases, and a label that no other cases of this work have. One reply a case, in order."""


@contextmanager
def asking(judge: Judge, work: Work) -> Iterator[Ask]:
    """Give a function that asks the judge, through the store's ledger, while the block runs.

    What the replies cost is in `work.notes["calls"]` afterwards, also after kills. The function raises UserError where
    the judge can't go on (a wrong key, no budget left); every reply so far is in the ledger then, and other cases may
    still be asked about.
    """
    bill = Bill(work)
    try:
        with Ledger(work.store.root / "ledger.sqlite") as ledger:
            yield lambda cases, label: _asked(judge, cases, label, ledger, bill)
    except BaseException:
        judge.interrupt()
        raise
    finally:
        work.notes["calls"] = bill.total
        judge.close()


def require_judged(statuses: Sequence[str], what: str) -> None:
    """Raise UserError where the judge was asked and failed every time: that is no result, and may be otherwise later.

    `statuses` has one for each of `what` that could be judged.
    """
    if statuses and set(statuses) == {_FAILED}:
        raise UserError(
            f"nothing was judged: the judge failed for all {len(statuses)} {what} ({_FAILED}); mend what it said "
            "above, and run again: only what is missing is asked for"
        )


def _asked(judge: Judge, cases: Sequence[Case], label: str, ledger: Ledger, bill: Bill) -> list[Reply]:
    step = len(cases) if judge.whole else _AT_ONCE
    replies: list[Reply] = []
    with metered(label, len(cases), "judgments") as meter:
        for start in range(0, len(cases), step or 1):
            some = cases[start : start + step]
            given = judge.replies(some, ledger)
            bill.keep(f"{label} {start}".replace("/", " "), given)
            replies += given
            meter.advance(len(some))
    return replies
