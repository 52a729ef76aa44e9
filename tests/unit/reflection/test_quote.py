"""What a reflection will cost, told before anything is sent, and compared with what it then costs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection
from srecycle.reflection.bases import Base, bases
from srecycle.reflection.quote import PRIOR, Quote, quote
from srecycle.rows import OK
from srecycle.selector.always import Always
from srecycle.selector.select import Select
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.teacher import Teacher
from srecycle.teacher.scripted import ScriptedTeacher
from srecycle.teacher.several import SeveralTeachers
from tests.unit.reflection.conftest import ChatServer, Messages

PAIR = "[New Instruction]\n{}\n[End]\n[New Answer]\nA\n[End]"
ANSWER = "[Better Answer]\nA\n[End]"
REPLY_TOKENS = int(PRIOR.output_tokens_per_reply)


def _reflections(
    tmp_path: Path, teacher: Teacher, wording: Reflection, names: tuple[str, ...] = ("a", "b", "c")
) -> tuple[Source, Reflect, Reflect]:
    rows = [{"instruction": name.ljust(40, "i"), "output": "o" * 20} for name in names]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    wording = replace(
        wording, instruction_request="1{instruction}{response}", response_request="2{instruction}{response}"
    )
    source = Source(data=Alpaca(path=tmp_path / "rows.json"))
    parts: dict[str, Any] = {"rows": source, "teacher": teacher, "reflection": wording, "engine": LocalEngine()}
    first = Reflect(phase="instruction", **parts)
    return source, first, Reflect(phase="response", instructions=first, **parts)


def _good(messages: Messages) -> tuple[str, str]:
    first = messages[1]["content"].startswith("1")
    return (PAIR.format("new " + messages[1]["content"][1]) if first else ANSWER), "stop"


def test_quote_of_a_teacher_nobody_knows_counts_by_the_priors(
    tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    _, first, second = _reflections(tmp_path, server.teacher(), wording)
    tokens = 3 * (8 + 1 + 40 + 20) / 4
    written = 3 * REPLY_TOKENS
    usd = pytest.approx(round(tokens) * 2e-6 + written * 10e-6)
    assert quote(first) == Quote(
        requests=3,
        calls=3,
        input_tokens=round(tokens),
        output_tokens=written,
        usd=usd,
        usd_at_most=usd,
        minutes=3 / PRIOR.calls_per_second / 60,
        assumed=("4 characters a token", "replies of 500 tokens", "1 call a second"),
    )
    both = quote(second)
    assert (both.requests, both.calls, both.estimated) == (6, 6, 3)
    assert both.output_tokens == 6 * REPLY_TOKENS and both.input_tokens == round(2 * tokens)
    assert server.sent == []


def test_quote_duplicates_are_paid_once(tmp_path: Path, wording: Reflection, server: ChatServer) -> None:
    _, first, _ = _reflections(tmp_path, server.teacher(), wording, ("a", "a", "b"))
    assert (quote(first).requests, quote(first).calls, quote(first).found) == (3, 2, 1)


def test_quote_reasks_bound_the_bill(tmp_path: Path, wording: Reflection, server: ChatServer) -> None:
    def at_most(**settings: Any) -> Quote:
        return quote(_reflections(tmp_path, server.teacher(), replace(wording, **settings))[1])

    words = {"unparsed": "w" * 100}
    without, once, thrice = at_most(), at_most(reask_requests=words), at_most(reask_requests=words, reasks=3)
    assert without.usd == once.usd == thrice.usd == without.usd_at_most
    assert (without.reasks, once.reasks, thrice.reasks) == (0, 3, 9)
    assert once.usd_at_most == pytest.approx(once.usd * 2 + 3 * (REPLY_TOKENS + 25) * 2e-6, rel=1e-3)
    assert thrice.usd_at_most > once.usd_at_most
    assert at_most(reask_requests=words, reasks=0) == without


def test_quote_free_teacher_costs_nothing_and_needs_no_call(tmp_path: Path, wording: Reflection) -> None:
    asking = replace(wording, reask_requests={"unparsed": "w"})
    for stage in _reflections(tmp_path, ScriptedTeacher(), asking)[1:]:
        told = quote(stage)
        assert told == Quote(requests=told.requests, found=told.requests, estimated=told.estimated)


def test_quote_writes_nothing(tmp_path: Path, wording: Reflection, server: ChatServer) -> None:
    store = Store(tmp_path / "store")
    _, first, second = _reflections(tmp_path, server.teacher(), wording)
    before = sorted(tmp_path.rglob("*"))
    for stage in (first, second):
        assert quote(stage, store).calls == quote(stage).calls
    assert sorted(tmp_path.rglob("*")) == before


def test_quote_after_a_run_is_free_and_its_rates_are_the_ledgers(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = _good
    source, first, second = _reflections(tmp_path, server.teacher(), wording)
    for stage in (source, first):
        materialize(stage, store)
    found = quote(first, store)
    assert found == Quote(requests=3, found=3)
    # New rows: one of them is known. 77 characters were 100 tokens, and every reply had 50.
    _, larger, _ = _reflections(tmp_path, server.teacher(), wording, ("c", "d", "e"))
    told = quote(larger, store)
    assert (told.requests, told.found, told.calls) == (3, 1, 2)
    assert told.input_tokens == 200 and told.output_tokens == 100
    assert told.usd == pytest.approx(200 * 2e-6 + 100 * 10e-6)
    assert "replies of 500 tokens" not in told.assumed
    # The new instructions are written now, so nothing is estimated and the count is what is then sent.
    exact = quote(second, store)
    assert (exact.requests, exact.calls, exact.estimated) == (6, 6, 0)
    server.sent.clear()
    materialize(second, store)
    assert len(server.sent) == exact.calls and quote(second, store).calls == 0
    characters = sum(len(message["content"]) for messages in server.sent for message in messages)
    assert exact.input_tokens == pytest.approx(characters / (69 / 100), abs=1)


def test_quote_found_replies_that_cannot_be_used_will_be_asked_again(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: (_good(messages)[0] if messages[1]["content"][1] != "b" else "prose", "stop")
    source, first, _ = _reflections(tmp_path, server.teacher(), wording)
    for stage in (source, first):
        materialize(stage, store)
    asking = replace(wording, reask_requests={"unparsed": "mend"})
    _, again, _ = _reflections(tmp_path, server.teacher(), asking)
    told = quote(again, store)
    assert (told.requests, told.found, told.calls) == (3, 3, 1)
    server.sent.clear()
    materialize(again, store)
    assert len(server.sent) == told.calls and len(server.sent[0]) == 4
    assert quote(again, store) == Quote(requests=3, found=3)


def test_quote_part_of_the_teachers_free_counts_the_others(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: ("prose", "stop")
    names = tuple(f"{number:02}" for number in range(20))
    asking = replace(wording, reask_requests={"unparsed": "mend"})
    both = SeveralTeachers(teachers={"free": ScriptedTeacher(unparsable=1.0), "paid": server.teacher()})
    source, first, _ = _reflections(tmp_path, both, replace(asking, reasks=0), names)
    mine = len(both.parts([first.request(base) for base in _bases(first)])["paid"])
    assert 0 < mine < 20
    assert (quote(first).calls, quote(first).found) == (mine, 20 - mine)
    for stage in (source, first):
        materialize(stage, store)
    assert len(server.sent) == mine and quote(first, store).calls == 0
    _, again, _ = _reflections(tmp_path, both, asking, names)
    assert quote(again, store).calls == mine


def _bases(stage: Reflect) -> list[Base]:
    return [base for base in bases(stage.reflection, stage.rows.data.rows(), []) if base.status == OK]


def test_quote_chosen_is_at_most_one_a_row_and_exact_once_it_is_chosen(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: ("prose", "stop") if messages[1]["content"][1] == "b" else _good(messages)
    source, first, second = _reflections(tmp_path, server.teacher(), wording)
    select = Select(
        phase="instruction", rows=source, reflections=(first,), likelihoods=(), before=None, selector=Always()
    )
    chosen = replace(second, chosen=select)
    unknown = quote(chosen, store)
    assert (unknown.requests, unknown.calls, unknown.estimated) == (3, 3, 3)
    for stage in (source, first):
        materialize(stage, store)
    partly = quote(chosen, store)
    assert (partly.requests, partly.calls, partly.estimated) == (3, 3, 2)  # the unusable one's row keeps its original
    materialize(select, store)
    exact = quote(chosen, store)
    assert (exact.requests, exact.calls, exact.estimated) == (3, 3, 0)
    server.sent.clear()
    materialize(chosen, store)
    assert len(server.sent) == 3 and quote(chosen, store).calls == 0


def test_quote_samples_are_counted_and_exact_once_the_bases_are_known(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: ("prose", "stop") if messages[1]["content"][1] == "b" else _good(messages)
    once = quote(_reflections(tmp_path, server.teacher(), wording)[1])
    source, first, second = _reflections(tmp_path, server.teacher(samples=3), wording)
    select = Select(
        phase="instruction", rows=source, reflections=(first,), likelihoods=(), before=None, selector=Always()
    )
    chosen = replace(second, chosen=select)
    told = quote(first)
    assert (told.requests, told.calls, told.estimated) == (9, 9, 0)
    assert (told.input_tokens, told.output_tokens) == (
        pytest.approx(3 * once.input_tokens, abs=2),
        3 * 3 * REPLY_TOKENS,
    )
    assert told.usd == pytest.approx(3 * once.usd, rel=1e-3)
    unknown = quote(chosen, store)
    assert (unknown.requests, unknown.calls, unknown.estimated) == (9, 9, 9)
    for stage in (source, first):
        materialize(stage, store)
    assert len(server.sent) == told.calls and quote(first, store).calls == 0
    partly = quote(chosen, store)
    assert (partly.requests, partly.calls, partly.estimated) == (9, 9, 6)  # the unusable one's row keeps its original
    materialize(select, store)
    exact = quote(chosen, store)
    assert (exact.requests, exact.calls, exact.estimated) == (9, 9, 0)
    server.sent.clear()
    materialize(chosen, store)
    assert len(server.sent) == 9 and quote(chosen, store).calls == 0
    more = quote(replace(first, teacher=server.teacher(samples=4)), store)
    assert (more.requests, more.found, more.calls) == (12, 9, 3)
