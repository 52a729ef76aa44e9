"""What a reflection's replies cost: kept shard by shard beside the work, so that a killed stage still adds up.

A resumed stage finds finished shards made, and asks nothing for them: what they cost is read from here. A reply counts
once, however many rows it answers, and as paid for by the stage where it was paid for after the stage began, by
whichever of its processes.
"""

import json
import time
from collections.abc import Sequence

from srecycle.stage import Work
from srecycle.store import write_json
from srecycle.teacher import Reply

_NAMES = ("usd", "paid", "usd_paid", "input_tokens", "output_tokens")


class Bill:
    """The bill of one stage, by shard."""

    def __init__(self, work: Work) -> None:
        """Open the bill of a stage's work, begun now or by an earlier process."""
        self._begun = work.planned("begun", lambda: int(1000 * time.time())) / 1000
        self._folder = work.scratch / "bill"
        self._folder.mkdir(exist_ok=True)

    def keep(self, shard: str, replies: Sequence[Reply]) -> None:
        """Keep what a shard's replies cost; a shard that is asked for again replaces what it had."""
        known = {reply.key: self._figures(reply) for reply in sorted(replies, key=lambda one: one.paid) if reply.key}
        write_json(self._folder / f"{shard}.json", {"replies": len(replies), "known": known})

    @property
    def total(self) -> dict[str, float]:
        """All of it: `replies`, their price `usd` whoever paid when; `paid`, `usd_paid` and tokens for this stage."""
        shards = [json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))]
        known: dict[str, list[float]] = {}
        for shard in shards:
            known |= shard["known"]
        columns = zip(*known.values(), strict=True) if known else [()] * len(_NAMES)
        figures = {name: sum(column) for name, column in zip(_NAMES, columns, strict=True)}
        return {"replies": sum(shard["replies"] for shard in shards), **figures}

    def _figures(self, reply: Reply) -> list[float]:
        paid = reply.paid or reply.time >= self._begun
        return [reply.usd, *((1, reply.usd, reply.input_tokens, reply.output_tokens) if paid else (0, 0, 0, 0))]
