"""What judging will cost, before anything is sent: the cases are made and looked up in the ledger, nobody is asked.

Answers that are not generated yet are for the caller to stand in for; `estimated` says how many cases hold some. Tokens
and speed are what the ledger says of the judge's earlier replies, reflections by the same model among them; where it
has none, the priors of srecycle.reflection.quote.
"""

from collections.abc import Sequence

from srecycle.judge.base import Case, Judge
from srecycle.reflection.quote import PRIOR, Quote, assumed, ledger_of
from srecycle.store import Store

_AT_ONCE = 1024


def quoted(judge: Judge, cases: Sequence[Case], store: Store | None = None, *, estimated: int = 0) -> Quote:
    """Return the quote of these cases. Without a store nothing is found."""
    with ledger_of(store) as ledger:
        outstanding = [
            case
            for start in range(0, len(cases), _AT_ONCE)
            for case in judge.outstanding(cases[start : start + _AT_ONCE], ledger)
        ]
        rates = judge.rates(ledger)
    known = rates or PRIOR
    characters = sum(len(message["content"]) for case in outstanding for message in case.messages)
    inputs = round(characters / known.characters_per_input_token)
    outputs = round(len(outstanding) * known.output_tokens_per_reply)
    usd = judge.price(inputs, outputs)
    return Quote(
        requests=len(cases),
        found=len(cases) - len(outstanding),
        calls=len(outstanding),
        estimated=estimated,
        input_tokens=inputs,
        output_tokens=outputs,
        usd=usd,
        usd_at_most=usd,
        minutes=len(outstanding) / (known.calls_per_second or PRIOR.calls_per_second) / 60,
        assumed=assumed(rates) if outstanding else (),
    )
