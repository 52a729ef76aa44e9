"""The stage that asks the teacher (steps 1 and 3 of the method).

In: rows, and for the response phase the new instructions. Out: `candidates.parquet`, one line for every row and every
version that the phase could make of it, usable or with the reason why not (srecycle.rows.Candidate); one for each of
the teacher's samples. Every reply is kept as it came, those after which the teacher was asked again too. Metrics are
counted from that table and from the bases, never from the calls, so that a resumed stage has those of an unbroken one.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from srecycle.config import component, runtime
from srecycle.data import Source
from srecycle.engine import Engine
from srecycle.progress import say
from srecycle.reflection.bases import Base, Bases
from srecycle.reflection.bill import Bill
from srecycle.reflection.criteria import scores
from srecycle.reflection.generating import Asking, asked_by, in_memory
from srecycle.reflection.parsing import Parsed, parse
from srecycle.reflection.prompts import Reflection
from srecycle.rows import CANDIDATE_SCHEMA, OK, Candidate, Phase, challenger, counted, kind_of, to_table
from srecycle.stage import Metrics, Stage, Work
from srecycle.teacher import Ledger, Reply, Request, Teacher

_WORTH_A_WARNING = 0.1


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A request with its reply, as read; `earlier` holds the replies after which it was asked again."""

    request: Request
    reply: Reply
    parsed: Parsed
    earlier: tuple[str, ...] = ()


@component
class Reflect(Stage):
    """Asks for the teacher's samples of each base.

    `chosen` restricts the response phase to what the student chose before. Where there are several samples of a new
    instruction it must: each of them would be answered several times.
    """

    revision: ClassVar[int] = 2

    phase: Phase
    rows: Source
    instructions: "Reflect | None" = None
    chosen: Stage | None = None
    teacher: Teacher
    reflection: Reflection
    engine: Engine = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return f"reflect_{self.phase}"

    def check(self) -> None:
        """Refuse to start without what the engine needs, or the teacher (a key, a file, a device of this machine)."""
        self.engine.check()
        if not (self.engine.elsewhere and in_memory(self.teacher)):
            self.teacher.check()

    def run(self, work: Work) -> Metrics:
        """Ask, parse, and write the candidates."""
        shown = self._bases(work)
        bill = Bill(work)
        given: dict[tuple[str, str, int], Answered] = {}
        with (
            Ledger(work.store.root / "ledger.sqlite") as ledger,
            _done_with(self.teacher),
            asked_by(self.engine, self.teacher, work.scratch) as (ask, engine),
        ):
            if self.teacher.whole:
                given, replies = self._ask(self.requests(shown), ledger, ask)
                bill.keep("whole", replies)

            def reflect(shard: Sequence[Base]) -> pa.Table:
                requests, answers = self.requests(shard), given
                if not self.teacher.whole:
                    answers, replies = self._ask(requests, ledger, ask)
                    bill.keep(f"{shard[0].row.id} {shard[0].version}", replies)
                asked = iter([answers[_asked_for(request)] for request in requests])
                candidates = [
                    self._candidate(base, sample, next(asked) if base.status == OK else None)
                    for base in shard
                    for sample in range(self.teacher.samples)
                ]
                return to_table(candidates, CANDIDATE_SCHEMA)

            work.write("candidates", engine.map_shards(self.name, shown, reflect, work.scratch))
        work.notes["calls"] = told = bill.total
        if told.get("usd"):
            paid = f"{told['paid']:,.0f} paid by this stage (${told['usd_paid']:,.2f})"
            say(f"  {self.name}: {told['replies']:,.0f} replies worth ${told['usd']:,.2f}, {paid}")
        candidates = work.written("candidates", ("version", "status", "teacher", "critique", "earlier_replies"))
        _warn(self.name, candidates)
        return self._metrics(shown, candidates)

    def requests(self, shown: Iterable[Base]) -> list[Request]:
        """Return the requests for all samples of these bases, less those that the teacher may not be shown."""
        asked = [self.request(base) for base in shown if base.status == OK]
        return [replace(one, sample=sample) for one in asked for sample in range(self.teacher.samples)]

    def request(self, base: Base) -> Request:
        """Return the request for the first sample of a base."""
        messages = self.reflection.messages(
            self.phase,
            instruction=base.instruction,
            input=base.input,
            response=base.response,
            history=base.history,
            context=base.context,
        )
        return Request(
            row_id=base.row.id,
            position=base.row.position,
            phase=self.phase,
            base=base.version,
            instruction=base.instruction,
            response=base.response,
            messages=messages,
        )

    def answered(self, request: Request, reply: Reply, earlier: tuple[str, ...] = ()) -> Answered:
        """Read a reply. One that the teacher could not give has the teacher's reason."""
        if reply.status != OK:
            parsed = Parsed(status=reply.status)
        else:
            parsed = parse(
                self.phase,
                reply.text,
                reply.finish_reason,
                criteria=self.reflection.scored(self.phase),
                placeholders=self.reflection.placeholders,
            )
        return Answered(request=request, reply=reply, parsed=parsed, earlier=earlier)

    def again(self, one: Answered) -> Request | None:
        """Return the request that asks once more after an unusable reply; None where that is not wanted."""
        if one.reply.status != OK or len(one.earlier) >= self.reflection.reasks:
            return None
        messages = self.reflection.again(self.phase, one.request.messages, one.reply.text, one.parsed.status)
        return replace(one.request, messages=messages) if messages is not None else None

    def _ask(
        self, requests: Sequence[Request], ledger: Ledger, ask: Asking
    ) -> tuple[dict[tuple[str, str, int], Answered], list[Reply]]:
        """Ask, and ask again where a reply can't be used, until all are usable or given up; return all replies too."""
        replies = list(ask(requests, ledger))
        asked = {_asked_for(one): self.answered(one, reply) for one, reply in zip(requests, replies, strict=True)}
        while again := [request for one in asked.values() if (request := self.again(one))]:
            more = ask(again, ledger)
            replies += more
            for request, reply in zip(again, more, strict=True):
                before = asked[_asked_for(request)]
                asked[_asked_for(request)] = self.answered(request, reply, (*before.earlier, before.reply.text))
        return asked, replies

    def _bases(self, work: Work) -> Bases:
        rows = work.read(self.rows).file("rows")
        candidates = work.read(self.instructions).file("candidates") if self.instructions else None
        chosen = None
        if self.chosen is not None:
            decisions = work.read(self.chosen).table("decisions", ["id", "chosen"])
            chosen = set(zip(decisions["id"].to_pylist(), decisions["chosen"].to_pylist(), strict=True))
        return Bases(self.reflection, rows, candidates, chosen)

    def _candidate(self, base: Base, sample: int, one: Answered | None) -> Candidate:
        parsed = one.parsed if one else Parsed(status=base.status)
        usable = parsed.status == OK
        on_response = self.phase == "response"
        return Candidate(
            id=base.row.id,
            version=challenger(self.phase, base.version, sample),
            base=base.version,
            status=parsed.status,
            instruction=(base.instruction if on_response else parsed.instruction) if usable else "",
            input=base.input if usable and on_response else "",
            response=parsed.response,
            critique=parsed.critique,
            reply=one.reply.text if one else "",
            finish_reason=one.reply.finish_reason if one else "",
            teacher=one.reply.teacher if one else "",
            criteria=parsed.criteria,
            earlier_replies=one.earlier if one else (),
        )

    def _metrics(self, shown: Iterable[Base], candidates: pa.Table) -> Metrics:
        asked = contexts = 0
        for base in shown:
            asked += base.status == OK
            contexts += base.status == OK and bool(base.context)
        kinds = [kind_of(name) for name in candidates["version"].to_pylist()]
        status = candidates["status"].to_pylist()
        statuses = Counter(f"{kind}/{why}" for kind, why in zip(kinds, status, strict=True))
        earlier = pc.list_value_length(candidates["earlier_replies"])
        asked_again = pc.sum(earlier).as_py() or 0
        requests = asked * self.teacher.samples + asked_again
        metrics: Metrics = {"requests": requests, **dict(sorted(statuses.items()))}
        usable = pc.equal(candidates["status"], OK)
        if self.reflection.reasks and self.reflection.reask_requests:
            metrics["asked_again"] = asked_again
            metrics["mended"] = pc.sum(pc.and_(usable, pc.greater(earlier, 0))).as_py() or 0
        if self.reflection.context != "none":
            metrics["context/shown"] = contexts
            metrics["context/none"] = asked - contexts
        if names := self.reflection.scored(self.phase):
            metrics |= _scores(candidates.filter(usable)["critique"].to_pylist(), names)
        teachers = {name: count for name, count in counted(candidates["teacher"]).items() if name}
        if len(teachers) > 1:
            metrics |= {f"teacher/{name}": count for name, count in teachers.items()}
        return metrics


def _asked_for(request: Request) -> tuple[str, str, int]:
    """Return what a request asks for: a sample of a version of a row, in one phase."""
    return request.row_id, request.base, request.sample


@contextmanager
def _done_with(teacher: Teacher) -> Iterator[None]:
    """Have the teacher let go of what it holds after the block, and stop where the block is left by an error."""
    try:
        yield
    except BaseException:
        teacher.interrupt()
        raise
    finally:
        teacher.close()


def _scores(critiques: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Count the scores of the usable replies: given, malformed or out of range, and not given."""
    read = [scores(critique, names) for critique in critiques]
    given = sum(len(one.given) for one in read)
    return {
        "scores/given": given,
        "scores/malformed": sum(one.malformed for one in read),
        "scores/missing": len(read) * len(names) - given,
    }


def _warn(label: str, candidates: pa.Table) -> None:
    """Say so where a tenth or more of the reflections gave nothing usable."""
    reasons = Counter({status: count for status, count in counted(candidates["status"]).items() if status != OK})
    if reasons.total() >= _WORTH_A_WARNING * len(candidates) > 0:
        why = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
        say(f"  warning: {label}: {reasons.total()} of {len(candidates)} reflections are not usable ({why})")
