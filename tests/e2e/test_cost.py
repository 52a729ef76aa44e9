"""What a run's replies cost: counted once, told by every run that rests on them, paid for by the first."""

import pytest

from tests.e2e.conftest import Go
from tests.faulty_server import FaultyServer

ROWS = 6
CALLS = 3 * ROWS  # one for the instruction, and one for the response to the original and to the new instruction each
USD = CALLS * (700 * 2 + 300 * 10) / 1e6  # the server's usage at the prices below


def test_cost_of_a_run_is_told_with_what_it_paid_itself(go: Go, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    with FaultyServer() as server:
        asked = (
            *(
                "data=testbed",
                f"data.count={ROWS}",
                "teacher=openai",
                f"teacher.base_url={server.url}",
                "until=assemble",
            ),
            *("teacher.usd_per_million_input_tokens=2", "teacher.usd_per_million_output_tokens=10", "tracker=jsonl"),
            *("selector@selector.instruction=always", "selector@selector.response=always", "keep=[none]"),
        )
        first, again = go(*asked), go(*asked)
        assert server.billed.total() == CALLS
    names = ("cost/usd", "cost/usd_paid", "cost/calls_paid", "cost/usd_per_taken")
    taken = 2 * ROWS
    assert [first.metrics[name] for name in names] == pytest.approx([USD, USD, CALLS, USD / taken])
    assert [again.metrics[name] for name in names] == pytest.approx([USD, 0, 0, USD / taken])


def test_cost_of_a_run_without_replies_is_no_figure(go: Go) -> None:
    run = go("experiment=demo/original", "data.count=6", "until=assemble", "tracker=jsonl")
    assert not [name for name in run.metrics if name.startswith("cost/")]
