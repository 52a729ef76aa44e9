"""What a reflection that is still to be made will cost: calls, tokens, dollars and minutes, before anything is sent.

Requests that show original pairs are built and looked up in the ledger: those it has cost nothing, though one whose
reply can't be used may be asked for again. New instructions that are not written yet are taken to be as long as their
originals. Tokens and speed are what the ledger's replies of this teacher say; where it has none, the priors below, and
`assumed` says so. Planning writes nothing: neither store nor ledger is created.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from srecycle.reflection.bases import Base, Choices, bases
from srecycle.reflection.reflect import Reflect
from srecycle.rows import OK, Row, to_rows
from srecycle.stage import Stage
from srecycle.store import Artifact, Store
from srecycle.teacher import Ledger, Rates, Request

PRIOR: Final = Rates(replies=0, characters_per_input_token=4.0, output_tokens_per_reply=500.0, calls_per_second=1.0)
"""What is assumed of a teacher that the ledger knows nothing of."""

_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Quote:
    """The bill of one reflection stage.

    `requests` are made in all; `found` of them need no call (the ledger has them, or nobody is paid) and `calls` are to
    be sent, first re-asks of found replies that can't be used among them. `estimated` counts the requests whose texts
    are not known yet. Tokens, `usd` and `minutes` are those of `calls`. `reasks` is how many calls more there may be at
    most, should every reply have to be asked for again, and `usd_at_most` the bill in that case. `assumed` lists the
    priors that stand in for what the ledger doesn't know.
    """

    requests: int = 0
    found: int = 0
    calls: int = 0
    estimated: int = 0
    reasks: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    usd_at_most: float = 0.0
    minutes: float = 0.0
    assumed: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Count:
    requests: int = 0
    found: int = 0
    calls: int = 0
    characters: int = 0


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """What the stage will show its teacher, and which of it are stand-ins (by row and version)."""

    bases: list[Base]
    stand_ins: set[tuple[str, str]] = field(default_factory=set)


def quote(stage: Reflect, store: Store | None = None) -> Quote:
    """Return the quote of a reflection stage; asks nobody. Without a store nothing is found."""
    shown = _shown(stage, store)
    asked = [base for base in shown.bases if base.status == OK]
    if not asked:
        return Quote()
    with ledger_of(store) as ledger:
        counted = _counted(stage, asked, ledger)
        rates = stage.teacher.rates(ledger)
    estimated = stage.teacher.samples * sum((base.row.id, base.version) in shown.stand_ins for base in asked)
    return _priced(stage, counted, rates, estimated)


def _priced(stage: Reflect, counted: _Count, rates: Rates | None, estimated: int) -> Quote:
    known = rates or PRIOR
    speed = known.calls_per_second or PRIOR.calls_per_second
    wordings = stage.reflection.reask_requests.values()
    reasks = counted.calls * stage.reflection.reasks if wordings else 0
    # A re-ask shows the first request, the reply, and our words.
    repeated = known.output_tokens_per_reply + max(map(len, wordings), default=0) / known.characters_per_input_token
    inputs = counted.characters / known.characters_per_input_token
    outputs = counted.calls * known.output_tokens_per_reply
    rounds = 1 + (stage.reflection.reasks if wordings else 0)
    return Quote(
        requests=counted.requests,
        found=counted.found,
        calls=counted.calls,
        estimated=estimated,
        reasks=reasks,
        input_tokens=round(inputs),
        output_tokens=round(outputs),
        usd=stage.teacher.price(round(inputs), round(outputs)),
        usd_at_most=stage.teacher.price(round(rounds * inputs + reasks * repeated), round(rounds * outputs)),
        minutes=counted.calls / speed / 60,
        assumed=assumed(rates) if counted.calls else (),
    )


def assumed(rates: Rates | None) -> tuple[str, ...]:
    """Return the priors that stand in for what the ledger doesn't know, in words."""
    tokens = (
        f"{PRIOR.characters_per_input_token:g} characters a token",
        f"replies of {PRIOR.output_tokens_per_reply:g} tokens",
    )
    speed = (f"{PRIOR.calls_per_second:g} call a second",)
    if rates is None:
        return tokens + speed
    return () if rates.calls_per_second else speed


def _counted(stage: Reflect, asked: Sequence[Base], ledger: Ledger) -> _Count:
    """Look the requests up, some at a time: all of them at once are hundreds of megabytes of text."""
    count = _Count()
    for start in range(0, len(asked), _AT_ONCE):
        requests = stage.requests(asked[start : start + _AT_ONCE])
        outstanding = stage.teacher.outstanding(requests, ledger)
        calls = [*outstanding, *_asked_again(stage, requests, outstanding, ledger)]
        count.requests += len(requests)
        count.found += len(requests) - len(outstanding)
        count.calls += len(calls)
        count.characters += sum(len(message["content"]) for request in calls for message in request.messages)
    return count


def _asked_again(
    stage: Reflect, requests: Sequence[Request], outstanding: Sequence[Request], ledger: Ledger
) -> list[Request]:
    """Return the calls that follow from found replies which can't be used."""
    if not stage.reflection.reasks or not stage.reflection.reask_requests:
        return []
    sent = {id(request) for request in outstanding}
    found = [request for request in requests if id(request) not in sent]
    # Only a teacher that would have to be asked something new costs anything. To have it asked needs a new text.
    probes = [replace(one, messages=[{"role": "user", "content": f"{stage.key} {one.row_id}"}]) for one in found]
    paid = {one.row_id for one in stage.teacher.outstanding(probes, ledger)}
    found = [request for request in found if request.row_id in paid]
    if stage.teacher.outstanding(found, ledger):  # equal requests share one call, which is still to come
        found = [request for request in found if not stage.teacher.outstanding([request], ledger)]
    replies = stage.teacher.replies(found, ledger)
    read = [stage.answered(*pair) for pair in zip(found, replies, strict=True)]
    return stage.teacher.outstanding([again for one in read if (again := stage.again(one))], ledger)


def _shown(stage: Reflect, store: Store | None) -> _Shown:
    """Return the bases as the stage will find them, with stand-ins for what earlier stages have not made yet."""
    source = _made(stage.rows, store)
    rows = to_rows(source.table("rows")) if source else stage.rows.data.rows()
    candidates: list[dict[str, Any]] = []
    stand_ins: set[tuple[str, str]] = set()
    if stage.instructions is not None:
        if written := _made(stage.instructions, store):
            candidates = written.table("candidates").to_pylist()
        else:
            candidates = [_stand_in(row) for row in rows if row.instruction.strip()]
            stand_ins = {(row.id, "instruction") for row in rows}
    if stage.chosen is None:
        return _Shown(bases=bases(stage.reflection, rows, candidates), stand_ins=stand_ins)
    if decided := _made(stage.chosen, store):
        lines = decided.table("decisions").select(["id", "chosen"]).to_pylist()
        chosen: Choices = {(line["id"], line["chosen"]) for line in lines}
        return _Shown(bases=bases(stage.reflection, rows, candidates, chosen), stand_ins=stand_ins)
    # One a row, but nobody knows which: the new instruction where there may be one, since the ledger has it less often.
    first_usable = {line["id"]: line["version"] for line in reversed(candidates) if line["status"] == OK}
    likely: Choices = {(row.id, first_usable.get(row.id, "original")) for row in rows}
    return _Shown(bases=bases(stage.reflection, rows, candidates, likely), stand_ins=set(first_usable.items()))


def _stand_in(row: Row) -> dict[str, Any]:
    """Return a candidate that is not written yet: as long as the original, and like no other row's."""
    return {
        "id": row.id,
        "version": "instruction",
        "status": OK,
        "instruction": row.id.ljust(len(row.instruction), "?"),
        "input": "",
        "response": row.id.ljust(len(row.response), "?"),
    }


def _made(stage: Stage, store: Store | None) -> Artifact | None:
    return store.find(stage.name, stage.key) if store is not None else None


@contextmanager
def ledger_of(store: Store | None) -> Iterator[Ledger]:
    """Open the store's ledger, or an empty one that is gone afterwards."""
    path = store.root / "ledger.sqlite" if store is not None else None
    if path is not None and path.exists():
        with Ledger(path) as ledger:
            yield ledger
        return
    with TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
        yield ledger
