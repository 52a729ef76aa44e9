"""What a reflection's replies cost adds up over processes and shards."""

import time
from dataclasses import replace

import pytest

from srecycle.reflection.bill import Bill
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.teacher import Reply

PAID = Reply(text="a", key="a", paid=True, input_tokens=100, output_tokens=10, usd=0.25)
FOUND = Reply(text="b", key="b", input_tokens=40, output_tokens=4, usd=0.5, time=1.0)
FAILED = Reply(text="", status="teacher_failed")
NAMES = ("replies", "usd", "paid", "usd_paid", "input_tokens", "output_tokens")


@pytest.fixture
def work(store: Store) -> Work:
    scratch = store.root / "scratch"
    scratch.mkdir()
    return Work(store=store, folder=scratch, scratch=scratch)


def _total(bill: Bill) -> list[float]:
    return [bill.total[name] for name in NAMES]


def test_bill_counts_every_reply_and_dollars_apart_from_what_was_paid(work: Work) -> None:
    bill = Bill(work)
    bill.keep("row", [PAID, FOUND, FAILED])
    assert _total(bill) == [3, 0.75, 1, 0.25, 100, 10]


def test_bill_reply_that_answers_several_rows_is_paid_once(work: Work) -> None:
    bill = Bill(work)
    bill.keep("one", [PAID, replace(PAID, paid=False)])
    bill.keep("two", [replace(PAID, paid=False, time=time.time() + 1)])
    assert _total(bill) == [3, 0.25, 1, 0.25, 100, 10]


def test_bill_adds_up_what_several_processes_finished(work: Work) -> None:
    Bill(work).keep("one", [PAID, FOUND])
    later = Bill(work)
    later.keep("two", [replace(PAID, key="c")])
    assert _total(later) == _total(Bill(work)) == [3, 1.0, 2, 0.5, 200, 20]


def test_bill_reply_that_a_killed_process_paid_for_is_the_stages(work: Work) -> None:
    Bill(work)
    later = Bill(work)
    later.keep("one", [replace(FOUND, time=time.time() + 1)])
    assert _total(later) == [1, 0.5, 1, 0.5, 40, 4]


def test_bill_shard_that_is_asked_again_counts_once(work: Work) -> None:
    bill = Bill(work)
    bill.keep("one", [PAID])
    bill.keep("one", [FOUND])
    assert _total(bill) == [1, 0.5, 0, 0, 0, 0]


def test_bill_of_nothing_is_nothing(work: Work) -> None:
    assert _total(Bill(work)) == [0] * len(NAMES)
