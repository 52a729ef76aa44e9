"""One call's batches: handed over, polled, collected into the ledger, handed over again where that is due.

Everything that the server may hold is journalled, so this can be killed anywhere: the next run with the same requests
goes on from the journal and the ledger.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.teacher.base import Reply
from srecycle.teacher.batch_answers import Left, answers
from srecycle.teacher.batch_journal import Journal, Line, Sent
from srecycle.teacher.batch_server import BatchServer
from srecycle.teacher.completion import Completion, one_line
from srecycle.teacher.inquiry import Question
from srecycle.teacher.ledger import LEASE, Ledger
from srecycle.teacher.refusal import Trouble

if TYPE_CHECKING:
    from srecycle.teacher.batch import OpenAIBatchTeacher

_ENDED = ("completed", "failed", "expired", "cancelled")
_DOUBT = 60.0
"""Seconds after which a batch that the server doesn't list was never handed over."""

_LONGEST_POLL = 600.0
_WORTH_A_BATCH = 0.01
"""A budget that affords a smaller share of what is left is used up: its last cents would take days."""


class BatchRun:
    """The state of one call."""

    def __init__(
        self, teacher: "OpenAIBatchTeacher", secret: str, questions: Sequence[Question], ledger: Ledger
    ) -> None:
        """Nothing is claimed or sent before `run`."""
        self._teacher, self._secret, self._ledger = teacher, secret, ledger
        self._questions = {question.key: question for question in questions}
        self._replies: dict[str, Reply] = {}
        self._left: dict[str, Left] = {}
        self._tries: Counter[str] = Counter()
        self._under_way: list[Sent] = []
        self._server = BatchServer(teacher, secret, ledger.renew, LEASE / 3)
        self._told = ""

    def run(self) -> dict[str, Reply]:
        """Return a reply a question, by key. Raises UserError where the run must stop."""
        try:
            with Journal(self._teacher.journal) as self._journal:
                self._adopt()
                while waiting := self._waiting():
                    self._hand_over(waiting)
                    self._poll()
        except (KeyboardInterrupt, SystemExit):
            self._say_how_to_go_on()
            raise
        finally:
            self._server.close()
            self._ledger.release(self._questions.keys() - self._replies.keys())
        return self._result()

    def _waiting(self) -> list[Question]:
        """Return the questions that are still to be answered."""
        over = {key for key, left in self._left.items() if left.refused or self._tries[key] >= self._teacher.attempts}
        return [one for key, one in self._questions.items() if key not in self._replies and key not in over]

    def _adopt(self) -> None:
        """Take up the batches that an earlier run left under way, but for those that another process looks after."""
        for sent in self._journal.open(self._teacher.served_by, self._questions):
            mine = sent.lines.keys() & self._questions.keys()
            claim = self._ledger.claim(
                {key: self._questions[key].usd for key in mine}, provider=self._teacher.served_by
            )
            self._replies |= claim.found
            if claim.busy and not claim.ours:
                continue
            if sent.id is None and (found := self._looked_up(sent)):
                sent = replace(sent, id=found)
            if sent.id is None:
                self._journal.close(sent.token, "void")
                self._ledger.release(claim.ours)
                continue
            say(f"  batch {sent.id} of an earlier run is taken up: {len(sent.lines)} requests")
            self._under_way.append(sent)

    def _looked_up(self, sent: Sent) -> str | None:
        """Return the id of a batch whose handing over is in doubt, or None where the server never got it."""
        while True:
            if found := self._server.find(sent.token, sent.time):
                self._journal.sent(sent.token, found)
                return found
            if time.time() - sent.time >= _DOUBT:
                return None
            self._server.sleep(min(self._teacher.poll_seconds, _DOUBT))

    def _hand_over(self, waiting: Sequence[Question]) -> None:
        """Claim what is waiting and not under way, as far as the budget goes, and hand it over."""
        teacher = self._teacher
        flying = {key for sent in self._under_way for key in sent.lines}
        wanted = {question.key: question.usd for question in waiting if question.key not in flying}
        if not wanted:
            return
        if any(self._tries[key] for key in wanted):  # the server had no room, say: it won't have it at once
            self._server.sleep(teacher.poll_seconds)
        claim = self._ledger.claim(wanted, provider=teacher.served_by, cap=teacher.budget_usd)
        self._replies |= claim.found
        too_dear = wanted.keys() - {*claim.found, *claim.ours, *claim.busy}
        others = claim.reserved - sum(wanted[key] for key in claim.ours)  # may come free
        if too_dear and len(claim.ours) < _WORTH_A_BATCH * len(wanted) and not self._under_way and others < 1e-9:
            self._ledger.release(claim.ours)
            most = max(self._questions[key].usd for key in too_dear)
            raise UserError(
                f"the budget is used up: {claim.spent:.4f} dollars are spent with {teacher.served_by}, and each of the "
                f"{len(wanted)} requests left may cost up to {most:.4f}, with teacher.budget_usd="
                f"{teacher.budget_usd:g} for this store; all replies are kept: run again with a higher "
                "teacher.budget_usd to go on"
            )
        for lines, content in self._files([self._questions[key] for key in claim.ours]):
            self._under_way.append(self._sent(lines, content))
        if not self._under_way and not claim.found:  # others ask for them, or hold the money
            self._server.sleep(min(teacher.poll_seconds, LEASE / 3))

    def _files(self, questions: Sequence[Question]) -> Iterator[tuple[list[Line], bytes]]:
        """Split requests into files within the server's limits."""
        most_bytes = self._teacher.batch_megabytes * 1e6
        lines, content = list[Line](), bytearray()
        for question in questions:
            call = {"custom_id": question.key, "method": "POST", "url": "/v1/chat/completions"}
            text = json.dumps({**call, "body": question.request}).encode() + b"\n"
            if lines and (len(lines) == self._teacher.batch_requests or len(content) + len(text) > most_bytes):
                yield lines, bytes(content)
                lines, content = [], bytearray()
            lines.append(Line(key=question.key, request=question.request, sample=question.sample))
            content += text
        if lines:
            yield lines, bytes(content)

    def _sent(self, lines: Sequence[Line], content: bytes) -> Sent:
        """Hand over a file of requests; it is journalled before, and what is in doubt stays so for the next run."""
        sent, doubtful = self._journal.begin(self._teacher.served_by, lines), False
        try:
            file = self._server.upload(sent.token, content)
            attempt = 0
            while isinstance(done := self._server.create(file, sent.token), Trouble):
                # The answer got lost; the batch may be there all the same.
                attempt, doubtful = attempt + 1, True
                self._server.pause(done, attempt)
                if found := self._looked_up(sent):
                    done = found
                    break
                if attempt >= self._teacher.attempts:
                    raise self._server.stays_away(done)
        except UserError:
            if not doubtful:
                self._journal.close(sent.token, "void")
            raise
        self._journal.sent(sent.token, done)
        say(f"  batch {done} is handed over to {self._teacher.served_by}: {len(lines)} requests")
        return replace(sent, id=done)

    def _poll(self) -> None:
        """Wait until every batch under way has ended, and collect each that does."""
        wait = self._teacher.poll_seconds
        while self._under_way:
            for sent in self._under_way.copy():
                batch = self._server.batch(str(sent.id))
                self._tell(batch)
                if batch.status in _ENDED:
                    self._collect(sent, batch)
                    self._under_way.remove(sent)
            if self._under_way:
                self._server.sleep(wait)
                wait = min(wait * 1.5, max(_LONGEST_POLL, self._teacher.poll_seconds))

    def _collect(self, sent: Sent, batch: Any) -> None:
        """Commit a batch's replies, journal its failures, and close it."""
        unanswered = dict(sent.lines)
        for file in (batch.output_file_id, batch.error_file_id):
            content = self._server.content(file) if file else b""
            for key, answer in answers(content, self._secret):
                if (line := unanswered.pop(key, None)) is None:
                    continue
                if left := answer if isinstance(answer, Left) else self._kept(line, answer):
                    self._leave(line, left)
        why = "; ".join(f"{one.code}: {one.message}" for one in getattr(batch.errors, "data", None) or ())
        reason = one_line(f"batch {batch.status}{f' ({why})' if why else ''}")
        for line in unanswered.values():
            self._leave(line, Left(reason=reason))
        self._journal.close(sent.token, "done")

    def _kept(self, line: Line, completion: Completion) -> Left | None:
        """Commit a reply, or say why there is none."""
        usd = self._teacher.price(completion.input_tokens, completion.output_tokens)
        if completion.text is None:
            return Left(reason="the answer has no text", status=200, usd=usd)
        reply = Reply(
            text=completion.text,
            finish_reason=completion.finish_reason,
            paid=True,
            input_tokens=completion.input_tokens,
            output_tokens=completion.output_tokens,
            usd=usd,
        )
        stands = self._ledger.keep(
            line.key,
            reply,
            provider=self._teacher.served_by,
            request=line.request,
            seconds=0.0,
            attempts=self._tries[line.key] + 1,
            sample=line.sample,
            reasoning_tokens=completion.reasoning_tokens,
        )
        if not stands:
            known = self._ledger.find(line.key) or reply
            if known.text != reply.text:  # paid for by somebody else meanwhile: theirs stands, and ours has its price
                self._journal_failure(line, Left(reason="too late: another reply stands", status=200, usd=usd))
            reply = known
        if line.key in self._questions:
            self._replies[line.key] = reply
        return None

    def _leave(self, line: Line, left: Left) -> None:
        self._tries[line.key] += 1
        self._journal_failure(line, left)
        self._left[line.key] = left
        self._ledger.release([line.key])

    def _journal_failure(self, line: Line, left: Left) -> None:
        self._ledger.fail(
            line.key,
            attempt=max(self._tries[line.key], 1),
            error=left.reason,
            seconds=0.0,
            provider=self._teacher.served_by,
            model=self._teacher.model,
            status=left.status,
            usd=left.usd,
        )

    def _tell(self, batch: Any) -> None:
        counts = batch.request_counts
        line = f"  batch {batch.id}: {batch.status}" + (
            f", {counts.completed} of {counts.total} done" if counts else ""
        )
        if line != self._told:
            self._told = line
            say(line)

    def _say_how_to_go_on(self) -> None:
        if self._under_way:
            names = ", ".join(str(sent.id) for sent in self._under_way)
            say(f"  {self._teacher.served_by} goes on with {names}: the same command collects what is done then")

    def _result(self) -> dict[str, Reply]:
        """Return the replies; where some are missing, say so, or raise UserError where rows must not go without."""
        missing = {key: self._left[key] for key in self._questions if key not in self._replies}
        if not missing:
            return self._replies
        why = ", ".join(
            f"{count} {reason}" for reason, count in Counter(one.reason for one in missing.values()).most_common(3)
        )
        said = f"{self._teacher.served_by} left {len(missing)} of {len(self._questions)} requests unanswered"
        if not self._teacher.keep_failed:
            raise UserError(
                f"{said} ({why}); all replies are kept, so run again to ask for the rest only, or set "
                "teacher.keep_failed=true to go on without them (their rows then carry the reason)"
            )
        say(f"  {said} ({why})")
        failed = {
            key: Reply(text="", finish_reason="", status="teacher_refused" if left.refused else "teacher_failed")
            for key, left in missing.items()
        }
        return self._replies | failed
