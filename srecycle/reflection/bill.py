"""What a reflection's replies cost: kept shard by shard beside the work, so that a killed stage still adds up.

A resumed stage finds finished shards made, and asks nothing for them: what they cost is read from here. The ledger
knows what was paid when; this says what one stage's result rests on.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from srecycle.store import write_json
from srecycle.teacher import Reply


class Bill:
    """The usage of one stage, by shard."""

    def __init__(self, scratch: Path) -> None:
        """Open the bill of the work in `scratch`, begun anew or by an earlier process."""
        self._folder = scratch / "bill"
        self._folder.mkdir(exist_ok=True)

    def keep(self, name: str, usage: "Counter[str]") -> None:
        """Keep the usage of a shard; a shard that is asked for again replaces what it had."""
        write_json(self._folder / f"{name}.json", dict(usage))

    @property
    def total(self) -> dict[str, float]:
        """All of it: `replies`, their price `usd` whoever paid when; `paid`, `usd_paid` and tokens for this stage."""
        total = Counter[str]()
        for file in sorted(self._folder.glob("*.json")):
            total.update(json.loads(file.read_text()))
        return dict(total)


def used(replies: Sequence[Reply]) -> "Counter[str]":
    """Return the usage of replies: dollars, and tokens of those that were paid for now."""
    paid = [reply for reply in replies if reply.paid]
    return Counter(
        {
            "replies": len(replies),
            "usd": sum(reply.usd for reply in replies),
            "paid": len(paid),
            "usd_paid": sum(reply.usd for reply in paid),
            "input_tokens": sum(reply.input_tokens for reply in paid),
            "output_tokens": sum(reply.output_tokens for reply in paid),
        }
    )
