"""Requests on their way: claimed in the ledger, sent, tried again, kept. Runs in the dispatcher's loop.

Every reply is committed before anything else is done with it. An inquiry ends with a reply for every question, with the
reasons of those that got none, or with a UserError that stops the run.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.teacher.base import Reply
from srecycle.teacher.completion import Completion, read_completion
from srecycle.teacher.ledger import LEASE, Claim, Ledger
from srecycle.teacher.pace import LONGEST_PAUSE, Ticket, backoff
from srecycle.teacher.refusal import Trouble, come_back, dead, no_usage, refused, trouble_of, unanswered, used_up

if TYPE_CHECKING:
    from srecycle.teacher.dispatch import Dispatcher

GRACE: Final = 10.0
LONGEST_ASKED: Final = 900.0
"""Seconds: that requests under way have to come in once the run stops; of the longest pause that a server may ask."""
HOPELESS: Final = 8
"""So many requests refused, or given up, with no reply before or between them, stop the run: they all would be."""

_CLAIMED_AT_ONCE = 16
_POLL = 0.2


@dataclass(frozen=True, kw_only=True)
class Question:
    """A request to be paid for. `row` names its row to people, `usd` is the most it may cost, `tokens` an estimate."""

    key: str
    request: Mapping[str, Any]
    sample: int
    row: str
    usd: float
    tokens: float


class Inquiry:
    """The requests that one caller waits for, and how far they are."""

    def __init__(self, dispatcher: "Dispatcher", questions: Sequence[Question], ledger: Ledger, proven: bool) -> None:
        """Nothing is claimed or sent before `run`."""
        self._dispatcher, self._teacher, self._ledger = dispatcher, dispatcher.teacher, ledger
        self._questions = {question.key: question for question in questions}
        self._waiting, self._claimed = deque(self._questions), deque[str]()
        self._ours: set[str] = set()
        self._replies: dict[str, Reply] = {}
        self._reasons: Counter[str] = Counter()
        self._proven = proven
        self._claiming = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._stopped_by: Exception | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self) -> dict[str, Reply]:
        """Ask for everything, and return the replies by key. Raises UserError where the run must stop."""
        self._dispatcher.inquiries.add(self)
        self._dispatcher.proven |= self._proven
        count = min(self._teacher.concurrency, len(self._questions))
        workers = [asyncio.create_task(self._work()) for _ in range(count)]
        finished = asyncio.create_task(asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION))
        helpers = [finished, asyncio.create_task(self._renew()), asyncio.create_task(self._stopped.wait())]
        try:
            await asyncio.wait([finished, helpers[-1]], return_when=asyncio.FIRST_COMPLETED)
            if self._stopped.is_set():
                await self._wind_down(workers)
            for worker in workers:
                if worker.done() and not worker.cancelled():
                    worker.result()
        finally:
            self._dispatcher.inquiries.discard(self)
            for task in (*workers, *helpers):
                task.cancel()
            await asyncio.gather(*workers, *helpers, return_exceptions=True)
            self._ledger.release(self._ours)
        if self._stopped_by:
            raise self._stopped_by
        return self._result()

    def stop(self, reason: Exception | None) -> None:
        """Send nothing more, and end soon: with the first reason that was given."""
        self._stopped_by = self._stopped_by or reason
        self._stopped.set()

    async def _wind_down(self, workers: Sequence["asyncio.Task[None]"]) -> None:
        for worker in workers:
            if worker not in self._under_way:
                worker.cancel()
        if self._under_way:
            say(f"  stopping: {len(self._under_way)} requests under way have {GRACE:.0f} s to come in")
            await asyncio.wait(self._under_way.copy(), timeout=GRACE)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            self._ledger.renew()

    async def _work(self) -> None:
        try:
            while not self._stopped.is_set() and (key := await self._next()):
                await self._answer(self._questions[key])
        except UserError as error:  # the ledger can't be written
            self._dispatcher.stop(error)

    async def _next(self) -> str | None:
        """Return a key that is ours to ask for, or None where nothing is left."""
        while True:
            if self._claimed:
                return self._claimed.popleft()
            if not self._waiting:
                return None
            async with self._claiming:
                # Keys that others ask for, and money that others reserve, come free in time.
                if not self._claimed and self._waiting and not self._claim():
                    await asyncio.sleep(_POLL)

    def _claim(self) -> bool:
        """Claim some keys; return whether that brought anything."""
        wanted = [self._waiting.popleft() for _ in range(min(_CLAIMED_AT_ONCE, len(self._waiting)))]
        cap = self._teacher.budget_usd
        claim = self._ledger.claim(
            {key: self._questions[key].usd for key in wanted}, provider=self._teacher.served_by, cap=cap
        )
        self._replies |= claim.found
        self._claimed.extend(claim.ours)
        self._ours.update(claim.ours)
        self._waiting.extend(claim.busy)
        settled = {*claim.found, *claim.ours, *claim.busy}
        too_dear = [key for key in wanted if key not in settled]
        self._waiting.extendleft(reversed(too_dear))
        if cap is not None:
            self._watch(cap, claim, too_dear)
        return bool(claim.found or claim.ours)

    def _watch(self, cap: float, claim: Claim, too_dear: Sequence[str]) -> None:
        """Warn once when most of the budget is spent; stop when nothing more fits and nothing is under way."""
        if claim.spent >= self._teacher.budget_warn * cap and not self._dispatcher.warned:
            self._dispatcher.warned = True
            say(f"  warning: {claim.spent:.2f} of teacher.budget_usd={cap:g} are spent with {self._teacher.served_by}")
        if too_dear and not claim.reserved:
            self._dispatcher.stop(used_up(self._teacher, claim.spent, self._questions[too_dear[0]].usd))

    async def _answer(self, question: Question) -> None:
        """Ask until there is a reply, attempts run out, or the run stops."""
        attempt = counted = 0
        while True:
            attempt += 1
            replies_before = self._dispatcher.replies
            trouble = await self._attempt(question, attempt)
            if trouble is None or self._stopped.is_set():
                return None
            if trouble.follows == "row":
                return self._refused(question, trouble)
            if trouble.follows == "stop":
                return self._dispatcher.stop(refused(self._teacher, trouble, question.row))
            # Where others got replies meanwhile, being told to wait was not this request's failure.
            counted += trouble.follows != "pause" or self._dispatcher.replies == replies_before
            if counted >= self._teacher.attempts:
                return self._given_up(question, trouble)
            if trouble.follows == "again":
                await asyncio.sleep(max(backoff(counted), min(trouble.asked or 0.0, LONGEST_PAUSE)))

    async def _attempt(self, question: Question, attempt: int) -> Trouble | None:
        """Send a request; keep its reply, or journal and return what went wrong."""
        dispatcher, task = self._dispatcher, asyncio.current_task()
        assert task is not None
        async with dispatcher.slot(question.tokens) as ticket:
            self._under_way.add(task)
            started = time.monotonic()
            try:
                trouble = await self._sent(question, attempt, ticket, started)
            except asyncio.CancelledError:
                trouble = Trouble(follows="stop", name="dropped", told="the run was stopped before the answer came")
                self._journal(question, attempt, trouble, started)
                raise
            finally:
                self._under_way.discard(task)
            if trouble:
                self._journal(question, attempt, trouble, started)
                dispatcher.pace.told(ticket, trouble.headers)
            if trouble and trouble.follows == "pause":
                self._pause(trouble, ticket)
        return trouble

    async def _sent(self, question: Question, attempt: int, ticket: Ticket, started: float) -> Trouble | None:
        from openai import OpenAIError

        dispatcher, teacher = self._dispatcher, self._teacher
        create = dispatcher.client.chat.completions.with_raw_response.create
        try:
            # The client's own timeout begins anew with every byte that comes.
            async with asyncio.timeout(teacher.timeout):
                # As extra_body the fields are sent as they stand; as arguments the client walks through each of them.
                answer = await create(model=teacher.model, messages=[], extra_body=question.request)
            completion = read_completion(answer.content)
        except (OpenAIError, ValueError, TimeoutError, OSError) as error:
            return trouble_of(error, dispatcher.secret)
        dispatcher.pace.told(ticket, answer.headers)
        if completion.text is None:
            usd = teacher.price(completion.input_tokens, completion.output_tokens)
            return Trouble(follows="again", name="empty answer", told="the answer has no text", status=200, usd=usd)
        self._keep(question, completion, completion.text, attempt, started)
        dispatcher.replies, dispatcher.given_up, dispatcher.proven = dispatcher.replies + 1, 0, True
        dispatcher.pace.answered(ticket, completion.input_tokens + completion.output_tokens)
        if teacher.budget_usd is not None and not completion.has_usage:
            dispatcher.stop(no_usage(teacher))
        return None

    def _keep(self, question: Question, completion: Completion, text: str, attempt: int, started: float) -> None:
        teacher = self._teacher
        reply = Reply(
            text=text,
            finish_reason=completion.finish_reason,
            paid=True,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            usd=teacher.price(completion.input_tokens, completion.output_tokens),
        )
        stands = self._ledger.keep(
            question.key,
            reply,
            provider=teacher.served_by,
            request=question.request,
            seconds=time.monotonic() - started,
            attempts=attempt,
            sample=question.sample,
            reasoning_tokens=completion.reasoning_tokens,
        )
        self._ours.discard(question.key)
        if not stands:
            # Somebody whose claim we took for dead was faster: theirs stands, and ours was paid all the same.
            told = Trouble(follows="again", name="too late", told="another reply stands", status=200, usd=reply.usd)
            self._journal(question, attempt, told, started)
            reply = replace(self._ledger.find(question.key) or reply, paid=True)
        self._replies[question.key] = reply

    def _journal(self, question: Question, attempt: int, trouble: Trouble, started: float) -> None:
        self._ledger.fail(
            question.key,
            attempt=attempt,
            error=f"{trouble.name}: {trouble.told}",
            seconds=time.monotonic() - started,
            provider=self._teacher.served_by,
            model=self._teacher.model,
            status=trouble.status,
            usd=trouble.usd,
        )

    def _pause(self, trouble: Trouble, ticket: Ticket) -> None:
        if (trouble.asked or 0.0) > LONGEST_ASKED:
            self._dispatcher.stop(come_back(self._teacher, trouble))
        else:
            self._dispatcher.tell_pause(self._dispatcher.pace.refused(ticket, trouble.asked))

    def _refused(self, question: Question, trouble: Trouble) -> None:
        """Give the row its reason, or stop: where that isn't wanted, and where the server takes no request at all."""
        self._dispatcher.refused += 1
        hopeless = not self._dispatcher.proven and self._dispatcher.refused >= HOPELESS
        if hopeless or not self._teacher.keep_failed:
            self._dispatcher.stop(refused(self._teacher, trouble, question.row))
        self._fail(question, "teacher_refused", trouble)

    def _given_up(self, question: Question, trouble: Trouble) -> None:
        self._dispatcher.given_up += 1
        if self._dispatcher.given_up >= HOPELESS:
            self._dispatcher.stop(dead(self._teacher, trouble, self._dispatcher.given_up))
        self._fail(question, "teacher_failed", trouble)

    def _fail(self, question: Question, status: str, trouble: Trouble) -> None:
        self._replies[question.key] = Reply(text="", finish_reason="", status=status)
        self._reasons[trouble.name] += 1
        self._ours.discard(question.key)
        self._ledger.release([question.key])

    def _result(self) -> dict[str, Reply]:
        """Return the replies; where some are missing, say so, or raise UserError where rows must not go without."""
        if self._reasons:
            why = ", ".join(f"{count} {name}" for name, count in self._reasons.most_common())
            told = f"left {self._reasons.total()} of {len(self._questions)} requests unanswered"
            if not self._teacher.keep_failed:
                raise unanswered(self._teacher, told, why)
            say(f"  {self._teacher.served_by} {told} ({why})")
        return self._replies
