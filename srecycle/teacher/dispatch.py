"""Sending requests: one event loop in a thread of its own, shared by everybody who asks the same teacher.

Threads hand in inquiries and wait; all of them share connections, slots and pace, so several shards at once keep the
server busy across their borders without asking it for more. The loop's thread gets no signals: where the waiting thread
is interrupted, nothing more is sent, and what is under way has `GRACE` seconds to come in. The thread is a daemon and
ends when nobody has asked for a while.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import wait
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.teacher.base import Reply
from srecycle.teacher.inquiry import GRACE, Inquiry, Question
from srecycle.teacher.ledger import Ledger
from srecycle.teacher.pace import Pace, Ticket

if TYPE_CHECKING:
    from srecycle.teacher.openai import OpenAITeacher

_LINGER: Final = 30.0
_WAKE: Final = 0.5
_WORTH_TELLING: Final = 10.0

_open: dict[tuple[int, str, str], "Dispatcher"] = {}
_opening = threading.Lock()


def ask(
    teacher: "OpenAITeacher", secret: str, questions: Sequence[Question], ledger: Ledger, proven: bool
) -> dict[str, Reply]:
    """Return a reply a question, by key. `proven` says that the server is known to take requests of this kind.

    Raises UserError where the run must stop.
    """
    name = (os.getpid(), repr(teacher), secret)  # after a fork the thread is not there
    with _opening:
        if name not in _open:
            _open[name] = Dispatcher(teacher, secret)
        dispatcher = _open[name]
        dispatcher.users += 1
    try:
        return dispatcher.ask(Inquiry(dispatcher, questions, ledger, proven))
    finally:
        with _opening:
            dispatcher.users -= 1
            if not dispatcher.users:
                dispatcher.linger(name)


def stop(teacher: "OpenAITeacher") -> None:
    """End what other threads wait for: they get a UserError, once what is under way came in or its time is over."""
    with _opening:
        concerned = [
            one for (process, name, _), one in _open.items() if (process, name) == (os.getpid(), repr(teacher))
        ]
    for dispatcher in concerned:
        dispatcher.stop_soon(UserError("stopped with the run; the same command goes on where it stopped"))
    limit = time.monotonic() + GRACE + 1
    while any(dispatcher.users for dispatcher in concerned) and time.monotonic() < limit:
        time.sleep(0.01)


class Dispatcher:
    """The loop, its client and its pace. Everything but `ask` and `stop_soon` runs in the loop's thread."""

    def __init__(self, teacher: "OpenAITeacher", secret: str) -> None:
        """Start the loop's thread."""
        from openai import AsyncOpenAI, DefaultAioHttpClient

        self.teacher, self.secret, self.users = teacher, secret, 0
        self.pace = Pace(
            concurrency=teacher.concurrency,
            limits={"requests": teacher.requests_per_minute, "tokens": teacher.tokens_per_minute},
        )
        self.client: Any = AsyncOpenAI(
            api_key=secret,
            base_url=teacher.base_url,
            timeout=teacher.timeout,
            max_retries=0,
            http_client=DefaultAioHttpClient(),  # half again as many requests a second as the client's own
        )
        self.inquiries: set[Inquiry] = set()
        self.replies = self.given_up = self.refused = 0
        self.proven = self.warned = False
        self._under_way, self._told_until = 0, 0.0
        self._gate, self._freed = asyncio.Lock(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run, name="srecycle-teacher", daemon=True).start()

    def ask(self, inquiry: Inquiry) -> dict[str, Reply]:
        """Wait for the replies. An interrupted wait stops it first; a second interruption drops what is under way."""
        future = asyncio.run_coroutine_threadsafe(inquiry.run(), self._loop)
        try:
            # Woken now and then: a signal that another thread got doesn't end a wait.
            while not wait([future], timeout=_WAKE).done:
                pass
            return future.result()
        except BaseException:
            if not future.done():
                self._loop.call_soon_threadsafe(inquiry.stop, None)
                try:
                    with suppress(TimeoutError):
                        future.exception(timeout=GRACE + 1)
                finally:
                    future.cancel()
            raise

    @asynccontextmanager
    async def slot(self, tokens: float) -> AsyncIterator[Ticket]:
        """Wait for a turn, in the order of asking, and hold a slot."""
        async with self._gate:
            while self._under_way >= self.pace.slots:
                self._freed.clear()
                await self._freed.wait()
            while (delay := self.pace.delay(tokens)) > 0:
                await asyncio.sleep(delay)
            ticket = self.pace.leave(tokens)
            self._under_way += 1
        try:
            yield ticket
        finally:
            self._under_way -= 1
            self._freed.set()

    def stop_soon(self, reason: Exception) -> None:
        """Stop every inquiry, from any thread."""
        self._loop.call_soon_threadsafe(self.stop, reason)

    def stop(self, reason: Exception) -> None:
        """Stop every inquiry: what the server said holds for all of them."""
        for inquiry in self.inquiries:
            inquiry.stop(reason)

    def tell_pause(self, seconds: float) -> None:
        """Say that a long pause began, once: every refusal of a burst would."""
        now = self._loop.time()
        if seconds >= _WORTH_TELLING and now >= self._told_until:
            self._told_until = now + seconds
            say(f"  {self.teacher.served_by} asks for patience: going on in {seconds:.0f} s")

    def linger(self, name: tuple[int, str, str]) -> None:
        """Close after a while in which nobody asked. What was learnt of the pace is then forgotten."""

        def close() -> None:
            with _opening:
                if self.users or _open.get(name) is not self:
                    return
                del _open[name]
            self._loop.stop()

        self._loop.call_soon_threadsafe(self._loop.call_later, _LINGER, close)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self.client.close())
        self._loop.close()
