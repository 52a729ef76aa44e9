"""The stage that asks the teacher (steps 1 and 3 of the method).

In: rows, and for the response phase the new instructions. Out: `candidates.parquet`, one line for every row and every
version that the phase could make of it, usable or with the reason why not; the raw reply is always kept.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from srecycle.config import component, runtime
from srecycle.data import Source
from srecycle.engine import Engine
from srecycle.progress import say
from srecycle.reflection.parsing import Parsed, parse
from srecycle.reflection.prompts import Reflection
from srecycle.rows import CANDIDATE_SCHEMA, CHALLENGER, OK, Candidate, Phase, Row, Turn, Version, to_rows, to_table
from srecycle.stage import Metrics, Stage, Work
from srecycle.teacher import Ledger, Reply, Request, Teacher

_WORTH_A_WARNING = 0.1


@dataclass(frozen=True, kw_only=True)
class Base:
    """A version of a row that the teacher may be shown; `status` says why not, where it may not."""

    row: Row
    version: Version
    instruction: str
    input: str
    response: str
    history: tuple[Turn, ...] = ()
    status: str = OK


@component
class Reflect(Stage):
    """Asks for one reflection a base. `chosen` restricts the response phase to what the student chose before."""

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
        """Refuse to start without what the teacher needs (a key, a file)."""
        self.teacher.check()

    def run(self, work: Work) -> Metrics:
        """Ask, parse, and write the candidates."""
        bases = self._bases(work)
        usage: Counter[str] = Counter()
        with Ledger(work.store.root / "ledger.sqlite") as ledger:

            def reflect(shard: Sequence[Base]) -> pa.Table:
                replies = self.teacher.replies([self._request(base) for base in shard if base.status == OK], ledger)
                usage.update(_usage(replies))
                answers = iter(replies)
                candidates = [self._candidate(base, next(answers) if base.status == OK else None) for base in shard]
                return to_table(candidates, CANDIDATE_SCHEMA)

            candidates = self.engine.map_shards(self.name, bases, reflect, work.scratch)
        work.write("candidates", candidates)
        work.notes["calls"] = dict(usage)
        _warn(self.name, candidates)
        statuses = Counter(zip(candidates["version"].to_pylist(), candidates["status"].to_pylist(), strict=True))
        return {
            "requests": sum(base.status == OK for base in bases),
            **{f"{version}/{status}": count for (version, status), count in sorted(statuses.items())},
        }

    def _bases(self, work: Work) -> list[Base]:
        rows = to_rows(work.read(self.rows).table("rows"))
        bases = [
            Base(
                row=row,
                version="original",
                instruction=row.instruction,
                input=row.input,
                response=row.response,
                history=row.history,
                status=OK if row.instruction.strip() else "empty_instruction",
            )
            for row in rows
        ]
        if self.instructions is not None:
            by_id = {row.id: row for row in rows}
            bases += [
                Base(
                    row=by_id[line["id"]],
                    version="instruction",
                    instruction=line["instruction"],
                    input=line["input"],
                    response=line["response"],
                    status=OK if line["status"] == OK else "base_unusable",
                )
                for line in work.read(self.instructions).table("candidates").to_pylist()
            ]
        if self.chosen is not None:
            decisions = work.read(self.chosen).table("decisions").select(["id", "chosen"]).to_pylist()
            taken = {(line["id"], line["chosen"]) for line in decisions}
            bases = [base for base in bases if (base.row.id, base.version) in taken]
        # A row's bases stand together, so that a shard holds whole rows.
        return sorted(bases, key=lambda base: (base.row.position, base.version != "original"))

    def _request(self, base: Base) -> Request:
        messages = self.reflection.messages(
            self.phase,
            instruction=base.instruction,
            input=base.input,
            response=base.response,
            history=base.history,
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

    def _candidate(self, base: Base, reply: Reply | None) -> Candidate:
        if reply is None:
            parsed = Parsed(status=base.status)
        elif reply.status != OK:
            parsed = Parsed(status=reply.status)
        else:
            parsed = parse(self.phase, reply.text, reply.finish_reason)
        usable = parsed.status == OK
        on_response = self.phase == "response"
        return Candidate(
            id=base.row.id,
            version=CHALLENGER[self.phase, base.version],
            base=base.version,
            status=parsed.status,
            instruction=(base.instruction if on_response else parsed.instruction) if usable else "",
            input=base.input if usable and on_response else "",
            response=parsed.response,
            critique=parsed.critique,
            reply=reply.text if reply else "",
            finish_reason=reply.finish_reason if reply else "",
        )


def _warn(label: str, candidates: pa.Table) -> None:
    """Say so where a tenth or more of the reflections gave nothing usable."""
    reasons = Counter(status for status in candidates["status"].to_pylist() if status != OK)
    if reasons.total() >= _WORTH_A_WARNING * len(candidates) > 0:
        why = ", ".join(f"{count} {status}" for status, count in reasons.most_common())
        say(f"  warning: {label}: {reasons.total()} of {len(candidates)} reflections are not usable ({why})")


def _usage(replies: Sequence[Reply]) -> dict[str, float]:
    return {
        "replies": len(replies),
        "paid": sum(reply.paid for reply in replies),
        "input_tokens": sum(reply.input_tokens for reply in replies if reply.paid),
        "output_tokens": sum(reply.output_tokens for reply in replies if reply.paid),
        "usd": sum(reply.usd for reply in replies if reply.paid),
    }
