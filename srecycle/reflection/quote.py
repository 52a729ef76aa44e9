"""What a reflection that is still to be made may cost: an upper bound, told before anything is sent.

Counted: requests, and the characters of their prompts. Assumed, and said so: four characters a token, replies of
`REPLY_TOKENS` tokens, and rewritten pairs as long as the originals. Replies that the ledger has cost nothing.
"""

from dataclasses import dataclass
from typing import Final

from srecycle.reflection.reflect import Reflect

CHARACTERS_A_TOKEN: Final = 4
REPLY_TOKENS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Quote:
    """At most `requests` calls; about so many tokens, and dollars at the teacher's configured prices."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float


def quote(stage: Reflect) -> Quote:
    """Estimate a reflection stage from its source's rows; reads the source and asks nobody."""
    rows = stage.rows.data.rows()
    characters = sum(
        len(message["content"])
        for row in rows
        for message in stage.reflection.messages(
            stage.phase, instruction=row.instruction, input=row.input, response=row.response, history=row.history
        )
    )
    shown = 2 if stage.instructions is not None and stage.chosen is None else 1
    input_tokens = shown * characters // CHARACTERS_A_TOKEN
    output_tokens = shown * len(rows) * REPLY_TOKENS
    return Quote(
        requests=shown * len(rows),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        usd=stage.teacher.price(input_tokens, output_tokens),
    )
