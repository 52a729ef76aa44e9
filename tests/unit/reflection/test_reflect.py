"""The stage that asks the teacher: one candidate for every base, usable or with its reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.errors import UserError
from srecycle.reflection import Reflect, Reflection
from srecycle.reflection.versions import Versions
from srecycle.rows import OK
from srecycle.selector.always import Always
from srecycle.selector.select import Select
from srecycle.stage import Work, materialize
from srecycle.store import Artifact, Store
from srecycle.teacher import Ledger, Teacher
from srecycle.teacher.replay import ReplayTeacher
from srecycle.teacher.several import SeveralTeachers
from srecycle.verifier.exact import ExactVerifier
from tests.unit.reflection.conftest import ChatServer, Messages

ROWS = [
    {"instruction": "i0", "input": "n0", "output": "r0"},
    {"instruction": "i1", "input": "", "output": "r1"},
    {"instruction": " ", "input": "", "output": "r2"},
    {"instruction": "i3", "input": "", "output": "r3"},
]
REPLIES = [
    {"index": 0, "kind": "instruction", "reply": "C\n[New Instruction]\nI0\n[End]\n[New Answer]\nA0\n[End]"},
    {"index": 0, "kind": "response_original", "reply": "D\n[Better Answer]\nB0\n[End]"},
    {"index": 0, "kind": "response_reflected", "reply": "[Better Answer]\nBB0\n[End]"},
    {"index": 1, "kind": "instruction", "reply": "nothing of use"},
    {"index": 1, "kind": "response_original", "reply": "[Better Answer]\nB1", "finish_reason": "length"},
    {"index": 2, "kind": "instruction", "reply": "must not be asked for"},
]


def _stages(tmp_path: Path, wording: Reflection, shard_rows: int = 2) -> tuple[Source, Reflect, Reflect]:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    (tmp_path / "replies.jsonl").write_text("\n".join(map(json.dumps, REPLIES)))
    source = Source(data=Alpaca(path=tmp_path / "rows.json"))
    teacher = ReplayTeacher(path=tmp_path / "replies.jsonl")
    engine = LocalEngine(shard_rows=shard_rows)
    first = Reflect(phase="instruction", rows=source, teacher=teacher, reflection=wording, engine=engine)
    second = Reflect(
        phase="response", rows=source, instructions=first, teacher=teacher, reflection=wording, engine=engine
    )
    return source, first, second


def test_reflect_every_base_gets_one_candidate_with_its_reason(
    store: Store, tmp_path: Path, wording: Reflection
) -> None:
    stages = _stages(tmp_path, wording)
    made = [materialize(stage, store).artifact for stage in stages]
    ids = made[0].table("rows")["id"].to_pylist()
    first = made[1].table("candidates").to_pylist()
    assert [(line["id"], line["version"], line["base"], line["status"]) for line in first] == [
        (ids[0], "instruction", "original", OK),
        (ids[1], "instruction", "original", "unparsed"),
        (ids[2], "instruction", "original", "empty_instruction"),
        (ids[3], "instruction", "original", "not_recorded"),
    ]
    second = made[2].table("candidates").to_pylist()
    assert [(line["id"], line["version"], line["base"], line["status"]) for line in second] == [
        (ids[0], "response", "original", OK),
        (ids[0], "both", "instruction", OK),
        (ids[1], "response", "original", "truncated"),
        (ids[1], "both", "instruction", "base_unusable"),
        (ids[2], "response", "original", "empty_instruction"),
        (ids[2], "both", "instruction", "base_unusable"),
        (ids[3], "response", "original", "not_recorded"),
        (ids[3], "both", "instruction", "base_unusable"),
    ]
    assert made[1].metrics == {
        "requests": 3,
        "instruction/ok": 1,
        "instruction/unparsed": 1,
        "instruction/empty_instruction": 1,
        "instruction/not_recorded": 1,
    }


def test_reflect_candidates_keep_texts_input_critique_and_raw_reply(
    store: Store, tmp_path: Path, wording: Reflection
) -> None:
    stages = _stages(tmp_path, wording)
    made = [materialize(stage, store).artifact for stage in stages]
    lines = {(line["id"][-4:], line["version"]): line for a in made[1:] for line in a.table("candidates").to_pylist()}
    row = made[0].table("rows")["id"].to_pylist()[0][-4:]
    texts = ("instruction", "input", "response", "critique")
    assert [lines[row, "instruction"][name] for name in texts] == ["I0", "", "A0", "C"]
    assert [lines[row, "response"][name] for name in texts] == ["i0", "n0", "B0", "D"]
    assert [lines[row, "both"][name] for name in texts] == ["I0", "", "BB0", ""]
    unusable = next(line for line in lines.values() if line["status"] == "truncated")
    assert [unusable[name] for name in texts] == ["", "", "", ""]
    assert (unusable["reply"], unusable["finish_reason"]) == ("[Better Answer]\nB1", "length")


def test_reflect_shard_size_and_workers_change_no_candidate(tmp_path: Path, wording: Reflection) -> None:
    tables = []
    for shard_rows in (1, 3, 100):
        store = Store(tmp_path / str(shard_rows))
        made = [materialize(stage, store).artifact for stage in _stages(tmp_path, wording, shard_rows)]
        tables.append([artifact.table("candidates").to_pylist() for artifact in made[1:]])
    assert tables[0] == tables[1] == tables[2]


PAIR = "[New Instruction]\nI\n[End]\n[New Answer]\nA\n[End]"
ANSWER = "[Better Answer]\nA\n[End]"
WORDS = {"unparsed": "mend {form}", "truncated": "shorter {form}", "empty": "speak", "echoed": "own words"}


def _phase(
    tmp_path: Path, teacher: Teacher, wording: Reflection, rows: list[dict[str, str]], phase: Any = "response"
) -> tuple[Source, Reflect]:
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = Source(data=Alpaca(path=tmp_path / "rows.json", reference_field="known" if "known" in rows[0] else None))
    engine = LocalEngine(shard_rows=2)
    return source, Reflect(phase=phase, rows=source, teacher=teacher, reflection=wording, engine=engine)


def _made(store: Store, *stages: Any) -> Artifact:
    return [materialize(stage, store).artifact for stage in stages][-1]


def _rows(*names: str) -> list[dict[str, str]]:
    return [{"instruction": name, "output": "r"} for name in names]


def _by_row(messages: Messages) -> tuple[str, str]:
    """Answer first what the row is named after, and rightly when asked again."""
    asked_again = len(messages) > 2 or messages[-1]["content"].endswith("speak")
    first = {"prose": "no marker", "cut": ANSWER, "empty": "", "no": "I'm sorry, I can't.", "stubborn": "prose again"}
    name = messages[1]["content"]
    known = next((text for key, text in first.items() if name.startswith(key)), ANSWER)
    if asked_again and not name.startswith("stubborn"):
        return ANSWER, "stop"
    return known, "length" if name.startswith("cut") else "stop"


def test_reask_mends_what_words_are_for_and_keeps_every_reply(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    server.reply = _by_row
    asking = replace(wording, reask_requests=WORDS)
    names = ("fine|", "prose|", "cut|", "empty|", "no|", "stubborn|")
    made = _made(store, *_phase(tmp_path, server.teacher(), asking, _rows(*names)))
    lines = made.table("candidates").to_pylist()
    assert [(line["status"], line["reply"], line["earlier_replies"]) for line in lines] == [
        (OK, ANSWER, []),
        (OK, ANSWER, ["no marker"]),
        (OK, ANSWER, [ANSWER]),
        (OK, ANSWER, [""]),
        ("refused", "I'm sorry, I can't.", []),
        ("unparsed", "prose again", ["prose again"]),
    ]
    assert [line["response"] for line in lines] == ["A", "A", "A", "A", "", ""]
    assert made.metrics == {
        "requests": 10,
        "response/ok": 4,
        "response/refused": 1,
        "response/unparsed": 1,
        "asked_again": 4,
        "mended": 3,
    }
    assert len(server.sent) == 10
    again = next(
        messages for messages in server.sent if len(messages) == 4 and messages[1]["content"].startswith("cut")
    )
    assert again[2]["content"] == ANSWER and again[3]["content"].startswith("shorter [Better Answer]")
    assert made.provenance["notes"]["calls"]["paid"] == 10


def test_reask_number_bounds_the_attempts_and_each_is_a_new_text(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    server.reply = _by_row
    asking = replace(wording, reask_requests=WORDS, reasks=3)
    made = _made(store, *_phase(tmp_path, server.teacher(), asking, _rows("stubborn|")))
    assert made.table("candidates")["earlier_replies"].to_pylist() == [["prose again"] * 3]
    assert sorted(map(len, server.sent)) == [2, 4, 6, 8]


def test_reask_zero_takes_the_first_reply_as_it_is(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    server.reply = _by_row
    asking = replace(wording, reask_requests=WORDS, reasks=0)
    made = _made(store, *_phase(tmp_path, server.teacher(), asking, _rows("prose|", "fine|")))
    assert made.metrics == {"requests": 2, "response/ok": 1, "response/unparsed": 1}
    assert len(server.sent) == 2


def test_reask_pair_comes_whole_from_one_reply(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    halves = {2: "[New Instruction]\nI\n[End]", 4: "[New Answer]\nA\n[End]"}
    server.reply = lambda messages: (halves[len(messages)], "stop")
    asking = replace(wording, reask_requests=WORDS)
    made = _made(store, *_phase(tmp_path, server.teacher(), asking, _rows("i"), "instruction"))
    (line,) = made.table("candidates").to_pylist()
    assert (line["status"], line["instruction"], line["response"]) == ("unparsed", "", "")
    assert [*line["earlier_replies"], line["reply"]] == list(halves.values())


def test_reask_of_another_run_costs_nothing_and_gives_the_same(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    server.reply = _by_row
    asking = replace(wording, reask_requests=WORDS)
    stages = _phase(tmp_path, server.teacher(), asking, _rows("prose|", "cut|", "fine|"))
    first = _made(store, *stages)
    bytes_before, sent = (first.folder / "candidates.parquet").read_bytes(), len(server.sent)
    for file in first.folder.iterdir():
        file.unlink()
    again = _made(store, *stages)
    assert (again.folder / "candidates.parquet").read_bytes() == bytes_before
    assert again.metrics == first.metrics
    assert len(server.sent) == sent and again.provenance["notes"]["calls"]["paid"] == 0


def test_reask_teachers_own_failures_are_not_asked_again(store: Store, tmp_path: Path, wording: Reflection) -> None:
    (tmp_path / "replies.jsonl").write_text(json.dumps({"index": 0, "kind": "response_original", "reply": "prose"}))
    asking = replace(wording, reask_requests=WORDS)
    made = _made(store, *_phase(tmp_path, ReplayTeacher(path=tmp_path / "replies.jsonl"), asking, _rows("a", "b")))
    assert made.table("candidates")["earlier_replies"].to_pylist() == [["prose"], []]
    assert made.table("candidates")["status"].to_pylist() == ["unparsed", "not_recorded"]


def test_reflect_scores_are_kept_and_what_is_missing_is_counted(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    said = {
        "both": "[Score] accuracy: 3\n[Score] relevance: 8\n",
        "bad": "[Score] accuracy: 0\n[Score] relevance: many\n",
        "one": "[Score] relevance: 10\n",
        "none": "",
    }
    server.reply = lambda messages: (said[messages[1]["content"].split("|")[0]] + ANSWER, "stop")
    asking = replace(wording, score_criteria=True)
    made = _made(store, *_phase(tmp_path, server.teacher(), asking, _rows(*(f"{name}|" for name in said))))
    assert made.table("candidates")["criteria"].to_pylist() == [
        [{"name": "accuracy", "score": 3.0}, {"name": "relevance", "score": 8.0}],
        [],
        [{"name": "relevance", "score": 10.0}],
        [],
    ]
    scores = {name: value for name, value in made.metrics.items() if name.startswith("scores/")}
    assert scores == {"scores/given": 3, "scores/malformed": 2, "scores/missing": 5}
    assert "[Score] accuracy: number\n[Score] relevance: number" in server.sent[0][1]["content"]


KNOWN = [
    {"instruction": "one", "output": "It is 1.", "known": "1"},
    {"instruction": "two", "output": "It is 3.", "known": "2"},
    {"instruction": "open", "output": "r", "known": ""},
    {"instruction": " ", "output": "r", "known": "4"},
]


@pytest.mark.parametrize(
    ("context", "shown"),
    [
        ("reference", ["one|known 1", "two|known 2", "open"]),
        ("verifier", ["one|checked Compared with the known result, this answer is right.", "two|checked", "open"]),
        ("none", ["one", "two", "open"]),
    ],
)
def test_reflect_context_is_shown_where_there_is_one_and_counted(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer, context: Any, shown: list[str]
) -> None:
    server.reply = lambda messages: (PAIR, "stop")
    asking = replace(
        wording,
        context=context,
        verifier=ExactVerifier(),
        instruction_request="{instruction}{context_block}<{response}>",
        response_request="{instruction}{context_block}<{response}>",
    )
    source, first = _phase(tmp_path, server.teacher(concurrency=1), asking, KNOWN, "instruction")
    made = _made(store, source, first)
    told = [messages[1]["content"].partition("<")[0] for messages in server.sent]
    assert len(told) == 3 and all(one.startswith(start) for one, start in zip(told, shown, strict=True))
    assert ("|" in told[2]) is False
    counted = {name: value for name, value in made.metrics.items() if name.startswith("context/")}
    assert counted == ({} if context == "none" else {"context/shown": 2, "context/none": 1})


def test_reflect_reference_of_the_original_is_not_shown_with_a_new_instruction(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: (PAIR, "stop")
    asking = replace(wording, context="reference", response_request="better: {instruction}{response}{context_block}")
    source, first = _phase(tmp_path, server.teacher(), asking, KNOWN[:1], "instruction")
    second = replace(first, phase="response", instructions=first)
    made = [materialize(stage, store).artifact for stage in (source, first)]
    server.reply = lambda messages: (ANSWER, "stop")
    server.sent.clear()
    made.append(materialize(second, store).artifact)
    contents = sorted(messages[1]["content"] for messages in server.sent)
    assert contents == ["better: IA", "better: oneIt is 1.|known 1"]
    assert (made[2].metrics["context/shown"], made[2].metrics["context/none"]) == (1, 1)
    versions = Versions(Work(store=store, folder=tmp_path, scratch=tmp_path), source, (first, second)).table()
    assert dict(zip(versions["version"].to_pylist(), versions["reference"].to_pylist(), strict=True)) == {
        "original": "1",
        "instruction": "",
        "response": "1",
        "both": "",
    }


def test_reflect_several_teachers_are_named_and_counted(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    rows = _rows(*(f"row {number}" for number in range(20)))
    alone = _made(store, *_phase(tmp_path, server.teacher(), wording, rows))
    assert set(alone.table("candidates")["teacher"].to_pylist()) == {"m"}
    assert not [name for name in alone.metrics if name.startswith("teacher/")]
    both = SeveralTeachers(teachers={"a": server.teacher(), "b": server.teacher(temperature=0.0)})
    made = _made(store, *_phase(tmp_path, both, wording, rows))
    counted = {name: value for name, value in made.metrics.items() if name.startswith("teacher/")}
    assert set(counted) == {"teacher/a/m", "teacher/b/m"} and sum(counted.values()) == 20


def test_reflect_answer_that_repeats_the_original_is_a_usable_candidate(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    server.reply = lambda messages: ("It can't be better.\n[Better Answer]\nr\n[End]", "stop")
    made = _made(store, *_phase(tmp_path, server.teacher(), wording, _rows("i")))
    (line,) = made.table("candidates").to_pylist()
    assert (line["status"], line["instruction"], line["response"]) == (OK, "i", "r")


def _sampled(messages: Messages) -> tuple[str, str]:
    return "\n".join(["[Better Answer]", f"A to {messages[1]['content']} with {len(messages)}", "[End]"]), "stop"


def test_samples_are_asked_for_apart_and_each_is_a_version(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    numbers = iter(range(100))
    server.reply = lambda messages: (f"[Better Answer]\nA{next(numbers)}\n[End]", "stop")
    made = _made(store, *_phase(tmp_path, server.teacher(samples=3, concurrency=1), wording, _rows("a", " ", "b")))
    lines = made.table("candidates").to_pylist()
    assert [(line["version"], line["status"], line["response"]) for line in lines] == [
        *[("response", OK, "A0"), ("response-2", OK, "A1"), ("response-3", OK, "A2")],
        *[(version, "empty_instruction", "") for version in ("response", "response-2", "response-3")],
        *[("response", OK, "A3"), ("response-2", OK, "A4"), ("response-3", OK, "A5")],
    ]
    assert {line["base"] for line in lines} == {"original"}
    assert made.metrics == {"requests": 6, "response/empty_instruction": 3, "response/ok": 6}
    assert len(server.sent) == 6


def test_samples_more_of_them_pay_for_the_further_ones_only(
    tmp_path: Path, store: Store, wording: Reflection, server: ChatServer
) -> None:
    replies: list[str] = []
    server.reply = lambda messages: (replies.append("") or f"[Better Answer]\nA{len(replies)}\n[End]", "stop")  # type: ignore[func-returns-value]
    made = {}
    for samples in (1, 2, 3):
        server.sent.clear()
        made[samples] = _made(store, *_phase(tmp_path, server.teacher(samples=samples), wording, _rows("a", "b")))
        assert len(server.sent) == 2
    texts = {
        samples: {(line["id"], line["version"]): line["response"] for line in one.table("candidates").to_pylist()}
        for samples, one in made.items()
    }
    assert texts[1].items() < texts[2].items() < texts[3].items()
    assert len(set(texts[3].values())) == len(texts[3]) == 6


def test_samples_reask_is_of_the_same_sample(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    """The first try of every sample is the same prose, so only its number keeps the second tries apart."""
    replies: list[str] = []

    def reply(messages: Messages) -> tuple[str, str]:
        replies.append("")
        return (f"[Better Answer]\nA{len(replies)}\n[End]" if len(messages) > 2 else "prose"), "stop"

    server.reply = reply
    asking = replace(wording, reask_requests=WORDS)
    made = _made(store, *_phase(tmp_path, server.teacher(samples=3), asking, _rows("a")))
    lines = made.table("candidates").to_pylist()
    assert [line["earlier_replies"] for line in lines] == [["prose"]] * 3
    assert len({line["response"] for line in lines}) == 3
    assert (made.metrics["requests"], made.metrics["asked_again"], made.metrics["mended"]) == (6, 3, 3)
    with Ledger(store.root / "ledger.sqlite") as ledger:
        asked = [
            (line["sample"], len(json.loads(line["request"])["messages"]))
            for line in ledger.rows("SELECT sample, request FROM replies ORDER BY sample, length(request)")
        ]
    assert asked == [(0, 2), (0, 4), (1, 2), (1, 4), (2, 2), (2, 4)]


def test_samples_of_a_broken_reflection_are_not_paid_again_and_end_in_the_same_bytes(
    tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    rows = _rows(*(f"row {number}" for number in range(6)))
    server.reply = _sampled
    stages = _phase(tmp_path, server.teacher(samples=3, concurrency=1), wording, rows)
    whole = _made(Store(tmp_path / "whole"), *stages)
    server.sent.clear()

    def dies(messages: Messages) -> tuple[str, str]:
        if len(server.sent) > 10:
            raise ConnectionResetError
        return _sampled(messages)

    server.reply = dies
    store = Store(tmp_path / "broken")
    with pytest.raises(UserError):
        _made(store, *stages)
    with Ledger(store.root / "ledger.sqlite") as ledger:
        (line,) = ledger.rows("SELECT count(*) AS count FROM replies")
    assert line["count"] == 10
    server.reply = _sampled
    server.sent.clear()
    resumed = _made(store, *stages)
    assert len(server.sent) == 6 * 3 - 10
    assert (resumed.folder / "candidates.parquet").read_bytes() == (whole.folder / "candidates.parquet").read_bytes()
    assert resumed.metrics == whole.metrics


def test_samples_response_is_asked_for_the_sample_that_was_chosen(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    numbers = iter(range(100))
    server.reply = lambda messages: (f"[New Instruction]\nI{next(numbers)}\n[End]\n[New Answer]\nA\n[End]", "stop")
    teacher = server.teacher(samples=3, concurrency=1)
    source, first = _phase(tmp_path, teacher, wording, _rows("a", "b"), "instruction")
    select = Select(phase="instruction", rows=source, reflections=(first,), selector=Always())
    second = replace(first, phase="response", instructions=first, chosen=select)
    for stage in (source, first, select):
        materialize(stage, store)
    server.sent.clear()
    server.reply = _sampled
    lines = _made(store, second).table("candidates").to_pylist()
    assert [(line["version"], line["base"], line["instruction"]) for line in lines] == [
        (version, "instruction-3", text) for text in ("I2", "I5") for version in ("both", "both-2", "both-3")
    ]
    assert [messages[1]["content"] for messages in server.sent] == ["I2A"] * 3 + ["I5A"] * 3


def test_samples_of_a_response_keep_the_known_answer_of_their_question(
    store: Store, tmp_path: Path, wording: Reflection, server: ChatServer
) -> None:
    stages = _phase(tmp_path, server.teacher(samples=2), wording, KNOWN[:1])
    _made(store, *stages)
    versions = Versions(Work(store=store, folder=tmp_path, scratch=tmp_path), stages[0], stages[1:]).table()
    assert versions["version"].to_pylist() == ["original", "response", "response-2"]
    assert versions["reference"].to_pylist() == ["1", "1", "1"]
