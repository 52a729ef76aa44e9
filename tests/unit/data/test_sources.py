"""Sources: every format, odd rows, subsets, and each message that a user can get."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.data.base import Data
from srecycle.data.chat import Chat
from srecycle.data.testbed import Testbed as World
from srecycle.errors import UserError
from srecycle.rows import Turn, content_id
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.testbed.judgement import judge
from srecycle.testbed.originals import MIX

SAMPLES = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say hi.", "input": "", "output": "hi\n"},
    {"instruction": "  odd \u2028 \U0001f600 {x}", "input": None, "output": ""},
    {"instruction": "", "output": "no instruction"},
    {"instruction": "Say hi.", "input": "", "output": "hi\n"},
]
EXPECTED = [
    ("Add.", "1 2", "3"),
    ("Say hi.", "", "hi\n"),
    ("  odd \u2028 \U0001f600 {x}", "", ""),
    ("", "", "no instruction"),
    ("Say hi.", "", "hi\n"),
]


def _written(path: Path, samples: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(samples))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(samples), path)
    else:
        path.write_text("\n\n".join(json.dumps(sample, ensure_ascii=False) for sample in samples) + "\n")
    return path


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ndjson", "a.parquet"])
def test_alpaca_any_format_gives_texts_as_they_stand(tmp_path: Path, name: str) -> None:
    rows = Alpaca(path=_written(tmp_path / name, SAMPLES)).rows()
    assert [(row.instruction, row.input, row.response) for row in rows] == EXPECTED
    assert [row.position for row in rows] == [0, 1, 2, 3, 4]
    assert [row.id for row in rows[:4]] == [content_id(*texts) for texts in EXPECTED[:4]]
    assert rows[4].id == f"{rows[1].id}-2"


def test_alpaca_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    for name, content in (("a.json", json.dumps(SAMPLES[:1])), ("a.jsonl", json.dumps(SAMPLES[0]))):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert Alpaca(path=tmp_path / name).rows()[0].instruction == "Add."


def test_alpaca_column_names_are_settings(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.jsonl", [{"q": "Q", "context": "C", "a": "A"}])
    (row,) = Alpaca(path=path, instruction="q", input="context", output="a").rows()
    assert (row.instruction, row.input, row.response) == ("Q", "C", "A")


def test_alpaca_real_file_is_read_whole(shared: Path) -> None:
    path = shared / "data" / "alpaca_subset_3111.json"
    rows = Alpaca(path=path).rows()
    records = json.loads(path.read_text())
    assert [(r.instruction, r.input, r.response) for r in rows] == [
        (r["instruction"], r["input"], r["output"]) for r in records
    ]
    assert len({row.id for row in rows}) == len(rows) == 3111


CONVERSATION = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Ciao")]


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
@pytest.mark.parametrize("style", ["messages", "sharegpt"])
def test_chat_conversation_becomes_last_pair_and_history(tmp_path: Path, style: str, suffix: str) -> None:
    if style == "messages":
        record: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in CONVERSATION]}
    else:
        names = {"user": "human", "assistant": "gpt", "system": "system"}
        record = {"id": "x", "conversations": [{"from": names[role], "value": text} for role, text in CONVERSATION]}
    (row,) = Chat(path=_written(tmp_path / f"a.{suffix}", [record])).rows()
    assert (row.instruction, row.input, row.response) == ("Bye", "", "Ciao")
    assert row.history == tuple(Turn(role=role, content=text) for role, text in CONVERSATION[:3])


@pytest.mark.parametrize(
    ("roles", "instruction", "response", "history"),
    [
        (["user"], "0", "", 0),
        (["assistant"], "", "0", 0),
        (["user", "assistant", "user"], "2", "", 2),
        (["user", "assistant", "assistant"], "", "2", 2),
        (["system"], "", "", 1),
        ([], "", "", 0),
    ],
)
def test_chat_incomplete_conversation_gives_a_row_with_an_empty_text(
    tmp_path: Path, roles: list[str], instruction: str, response: str, history: int
) -> None:
    messages = [{"role": role, "content": str(place)} for place, role in enumerate(roles)]
    (row,) = Chat(path=_written(tmp_path / "a.json", [{"messages": messages}])).rows()
    assert (row.instruction, row.response, len(row.history)) == (instruction, response, history)


LONG = [
    *[("system", "Be brief."), ("user", "q1"), ("assistant", "a1"), ("user", "unanswered"), ("user", "q2")],
    *[("assistant", "a2"), ("assistant", "and more"), ("user", "q3"), ("assistant", "a3")],
]


@pytest.mark.parametrize(
    ("turn", "pair", "history", "later"),
    [
        ("last", ("q3", "a3"), 7, 0),
        ("first", ("q1", "a1"), 1, 6),
        (1, ("q1", "a1"), 1, 6),
        (2, ("q2", "a2"), 4, 3),
        (3, ("q3", "a3"), 7, 0),
    ],
)
def test_chat_turn_chooses_the_pair_its_history_and_what_is_left_out(
    store: Store, tmp_path: Path, turn: Any, pair: tuple[str, str], history: int, later: int
) -> None:
    record = {"messages": [{"role": role, "content": text} for role, text in LONG]}
    data = Chat(path=_written(tmp_path / "a.json", [record]), turn=turn)
    (row,) = data.rows()
    assert (row.instruction, row.response) == pair
    assert row.history == tuple(Turn(role=role, content=text) for role, text in LONG[:history])
    assert materialize(Source(data=data), store).artifact.metrics["later_messages_left_out"] == later


def test_chat_turn_that_no_conversation_has_is_an_error(store: Store, tmp_path: Path) -> None:
    record = {"messages": [{"role": role, "content": text} for role, text in LONG]}
    data = Chat(path=_written(tmp_path / "a.json", [record]), turn=4)
    (row,) = data.rows()
    assert (row.instruction, row.response, len(row.history)) == ("", "", 9)
    with pytest.raises(UserError, match=r"none of the 1 samples .* both an instruction and a response.*data\.turn"):
        materialize(Source(data=data), store)


def test_chat_left_out_messages_are_told_once(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = {"messages": [{"role": role, "content": text} for role, text in LONG]}
    short = {"messages": record["messages"][:3]}
    data = Chat(path=_written(tmp_path / "a.json", [record, short, record]), turn="first")
    data.rows()
    assert capsys.readouterr().err == ""
    materialize(Source(data=data), store)
    said = capsys.readouterr().err
    assert said.count("left out") == 1
    assert "2 of 3 conversations go on behind the chosen turn (data.turn): their 12 later messages" in said


@pytest.mark.parametrize("turn", [0, -1, "second", 1.5])
def test_chat_turn_without_meaning_is_refused(tmp_path: Path, turn: Any) -> None:
    with pytest.raises(ValidationError, match="turn"):
        Chat(path=tmp_path / "a.json", turn=turn)


def test_reference_is_read_from_its_column_and_no_part_of_the_id(tmp_path: Path) -> None:
    texts = {"instruction": "i", "output": "o"}
    path = _written(tmp_path / "a.jsonl", [texts | {"known": "42"}, texts, texts | {"known": None}])
    rows = Alpaca(path=path, reference_field="known").rows()
    assert [row.reference for row in rows] == ["42", "", ""]
    assert [row.id for row in rows] == [row.id for row in Alpaca(path=path).rows()]
    assert {row.reference for row in Alpaca(path=path).rows()} == {""}
    messages = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    chats = _written(tmp_path / "b.jsonl", [messages | {"known": "7"}, messages])
    for turn in ("last", 1):
        assert [row.reference for row in Chat(path=chats, turn=turn, reference_field="known").rows()] == ["7", ""]


def test_reference_is_kept_and_counted(store: Store, tmp_path: Path) -> None:
    path = _written(tmp_path / "a.json", [{"instruction": "i", "output": "o", "known": known} for known in ("4", " ")])
    made = materialize(Source(data=Alpaca(path=path, reference_field="known")), store).artifact
    assert made.table("rows")["reference"].to_pylist() == ["4", " "]
    assert made.metrics["references"] == 1


def test_reference_column_that_no_record_has_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.jsonl", SAMPLES)
    _assert_refused(
        Alpaca(path=path, reference_field="answer"), r"no column 'answer' \(data.reference_field\); it has in"
    )
    chats = _written(tmp_path / "b.jsonl", [{"messages": []}])
    _assert_refused(Chat(path=chats, reference_field="answer"), r"no column 'answer' \(data.reference_field\)")
    numbers = _written(tmp_path / "c.jsonl", [{"instruction": "i", "output": "o", "known": 42}])
    _assert_refused(Alpaca(path=numbers, reference_field="known"), "record 0: 'known' should be text, but is int")


def test_input_column_that_no_record_has_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.jsonl", SAMPLES)
    _assert_refused(Alpaca(path=path, input="context"), r"no column 'context' \(data.input\); it has in")


def test_testbed_references_are_true_answers_and_ambiguous_tasks_have_none() -> None:
    rows = World(count=300, mix=dict(MIX)).rows()
    for row in rows:
        assert bool(row.reference) == (row.label != "ambiguous")
        if row.reference:
            assert judge(row.instruction, f"{row.reference} .") in ("ok", "noisy")
    assert len(rows) == 300


def test_testbed_samples_carry_labels_and_depend_on_the_seed() -> None:
    def texts(seed: int) -> list[tuple[str, str]]:
        mix = {"ok": 0.5, "refusal": 0.5}
        rows = World(count=60, world_seed=seed, mix=mix).rows()
        assert {row.label for row in rows} == set(mix)
        return [(row.instruction, row.response) for row in rows]

    assert texts(1) == texts(1) != texts(2)


@pytest.mark.parametrize("mix", [{"okay": 1.0}, {"ok": 0.0}, {}])
def test_testbed_mix_without_meaning_is_refused_before_any_work(mix: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="mix: "):
        World(mix=mix)


def _file(tmp_path: Path, count: int = 50) -> Path:
    samples = [{"instruction": f"i{n}", "output": f"o{n}"} for n in range(count)]
    return _written(tmp_path / "many.json", samples)


def test_rows_limit_draws_a_subset_in_source_order(tmp_path: Path) -> None:
    path = _file(tmp_path)
    whole = {row.position: row for row in Alpaca(path=path).rows()}
    some = Alpaca(path=path, limit=10, seed=1).rows()
    positions = [row.position for row in some]
    assert len(positions) == 10 and positions == sorted(set(positions))
    assert all(row == whole[row.position] for row in some)
    assert positions == [row.position for row in Alpaca(path=path, limit=10, seed=1).rows()]
    assert positions != [row.position for row in Alpaca(path=path, limit=10, seed=2).rows()]
    assert len(Alpaca(path=path, limit=99).rows()) == 50


def test_rows_positions_choose_places_of_the_whole_source(tmp_path: Path) -> None:
    rows = Alpaca(path=_file(tmp_path), positions=(7, 3, 7, 49)).rows()
    assert [(row.position, row.instruction) for row in rows] == [(3, "i3"), (7, "i7"), (49, "i49")]
    assert len(Alpaca(path=_file(tmp_path), positions=(7, 3, 49), limit=2).rows()) == 2


def test_identity_is_content_and_choice_and_not_the_path(tmp_path: Path) -> None:
    def key(path: Path, **fields: Any) -> str:
        return fingerprint(identity(Alpaca(path=path, **fields)))

    first = _written(tmp_path / "a.json", SAMPLES)
    copy = tmp_path / "copy.json"
    copy.write_bytes(first.read_bytes())
    assert key(first) == key(copy)
    changed = _written(tmp_path / "b.json", SAMPLES[:2])
    keys = {key(first), key(changed), key(first, limit=1), key(first, limit=1, seed=1), key(first, positions=(0,))}
    assert len(keys) == 5


def test_source_counts_what_is_odd(store: Store, tmp_path: Path) -> None:
    made = materialize(Source(data=Alpaca(path=_written(tmp_path / "a.json", SAMPLES))), store).artifact
    assert made.metrics == {
        "rows": 5,
        "duplicates": 1,
        "empty_responses": 1,
        "empty_instructions": 1,
        "references": 0,
        "later_messages_left_out": 0,
    }
    assert made.table("rows")["id"].to_pylist()[0] == content_id(*EXPECTED[0])


def test_source_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    data = Alpaca(path=_written(tmp_path / "a.json", SAMPLES))
    made = [materialize(Source(data=data), Store(tmp_path / name)).artifact for name in "ab"]
    for name in ("rows.parquet", "record.json"):
        assert (made[0].folder / name).read_bytes() == (made[1].folder / name).read_bytes()


GOOD = b'{"instruction": "i", "output": "o"}\n'
ERRORS: Mapping[str, tuple[str, bytes | None, str]] = {
    "missing": ("a.json", None, r"a\.json is not a file: give the path"),
    "empty json": ("a.json", b" \n", "is empty: expected a JSON array"),
    "empty array": ("a.json", b"[]", "holds no samples"),
    "empty jsonl": ("a.jsonl", b"\n\n", "holds no samples"),
    "object": ("a.json", b'{"data": []}', "holds a JSON dict: expected an array of samples"),
    "broken json": ("a.json", b'[\n{"instruction": "i"},\n{]\n', r"a\.json: line 3, column 2 is not JSON"),
    "broken line": ("a.jsonl", GOOD + b"\n{oops\n", r"a\.jsonl: line 3 is not JSON"),
    "not an object": ("a.jsonl", GOOD + b"[1]\n", r"line 2 is a JSON list: expected an object"),
    "not an object in array": ("a.json", b'["a"]', r"record 0 is a JSON str: expected an object"),
    "no column": (
        "a.jsonl",
        b'{"prompt": "i", "output": "o"}',
        "record 0 has no column 'instruction'; it has 'prompt'",
    ),
    "no columns": ("a.jsonl", b"{}", "record 0 has no column 'instruction'; it has none"),
    "wrong type": ("a.jsonl", GOOD + b'{"instruction": "i", "output": 7}', "record 1: 'output' should be text.* int"),
    "null": ("a.jsonl", b'{"instruction": null, "output": "o"}', "'instruction' should be text, but is NoneType"),
    "list as input": ("a.jsonl", b'{"instruction": "i", "input": [1], "output": "o"}', "'input' should be text.* list"),
    "not utf-8": ("a.json", b'[{"instruction": "\xe9"}]', "is not UTF-8 text .byte 18.: convert it"),
    "not utf-8 line": ("a.jsonl", GOOD * 500 + b'{"instruction": "\xe9"}', "line 501 is not UTF-8 text: convert it"),
    "half a character": ("a.jsonl", rb'{"instruction": "\ud83d", "output": ""}', r"'instruction' holds half of a char"),
    "not parquet": ("a.parquet", b"PAR0", "is not a readable parquet file"),
    "empty parquet": ("a.parquet", b"", "is not a readable parquet file"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_alpaca_unreadable_file_says_what_is_wrong(tmp_path: Path, case: str) -> None:
    name, content, said = ERRORS[case]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    _assert_refused(Alpaca(path=tmp_path / name), said)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "x"}, "record 0 has neither 'messages' nor 'conversations'; it has 'text'"),
        ({"messages": "hi"}, "'messages' should be a list of messages, but is str"),
        ({"messages": ["hi"]}, "message 0 should be an object with 'role' and 'content'"),
        ({"messages": [{"role": "user"}]}, "message 0 has no column 'content'"),
        ({"messages": [{"role": "user", "content": None}]}, "'content' should be text, but is NoneType"),
        ({"messages": [{"role": "robot", "content": ""}]}, "message 0 has the role 'robot'; known are human, gpt"),
        ({"conversations": [{"role": "user", "content": ""}]}, "message 0 has no column 'from'"),
    ],
)
def test_chat_unreadable_record_says_what_is_wrong(tmp_path: Path, record: dict[str, Any], said: str) -> None:
    _assert_refused(Chat(path=_written(tmp_path / "a.jsonl", [record])), said)


def test_rows_position_beyond_the_end_is_refused(tmp_path: Path) -> None:
    _assert_refused(Alpaca(path=_file(tmp_path, 3), positions=(1, 3)), "names 3, but .* ends at position 2")


def _assert_refused(data: Data, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        data.rows()
    assert "\n" not in str(refused.value)
