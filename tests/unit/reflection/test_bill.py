"""What a reflection's replies cost adds up over processes and shards."""

from pathlib import Path

import pytest

from srecycle.reflection.bill import Bill, used
from srecycle.teacher import Reply

PAID = Reply(text="a", paid=True, input_tokens=100, output_tokens=10, usd=0.25)
FOUND = Reply(text="b", input_tokens=40, output_tokens=4, usd=0.5)
FAILED = Reply(text="", status="teacher_failed")


def test_used_counts_every_reply_and_dollars_apart_from_what_was_paid_now() -> None:
    assert used([PAID, FOUND, FAILED, PAID]) == {
        "replies": 4,
        "usd": 1.0,
        "paid": 2,
        "usd_paid": 0.5,
        "input_tokens": 200,
        "output_tokens": 20,
    }


def test_bill_adds_up_what_several_processes_finished(tmp_path: Path) -> None:
    Bill(tmp_path).keep("row-1 original", used([PAID, FOUND]))
    later = Bill(tmp_path)
    later.keep("row-2 original", used([PAID]))
    assert later.total == Bill(tmp_path).total
    assert (later.total["replies"], later.total["usd"], later.total["paid"]) == (3, 1.0, 2)


def test_bill_shard_that_is_asked_again_counts_once(tmp_path: Path) -> None:
    bill = Bill(tmp_path)
    bill.keep("row-1 original", used([PAID]))
    bill.keep("row-1 original", used([FOUND]))
    assert (bill.total["replies"], bill.total["usd"], bill.total["usd_paid"]) == (1, 0.5, 0)


def test_bill_of_nothing_is_empty(tmp_path: Path) -> None:
    assert Bill(tmp_path).total == {}
    assert used([])["usd"] == pytest.approx(0)
