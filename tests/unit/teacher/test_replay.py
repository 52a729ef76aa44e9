"""Recordings in other shapes: the authors' aligned tables, hub layouts, rows by id and by content."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from srecycle.config import identity
from srecycle.errors import UserError
from srecycle.reflection.parsing import parse
from srecycle.rows import Phase, Version, content_id, numbered
from srecycle.teacher import Ledger, Reply, Request
from srecycle.teacher.recording import hub_records
from srecycle.teacher.replay import ReplayTeacher

PAIRS = {"instruction": "data.instruction", "input": "data.input", "response": "data.output"}
TABLES: dict[Version, str | None] = {
    "original": "origin",
    "instruction": "reflect_instruction",
    "response": "reflect_response",
    "both": "reflect_both",
}
ORIGIN = [
    {"instruction": "Name it. ", "input": "a cat", "output": "Cat"},
    {"instruction": "Add.", "input": "", "output": "2"},
    {"instruction": "Add.", "input": "", "output": "2"},
    {"instruction": "Failed.", "input": "", "output": "kept"},
]
RELEASED = {
    "origin": ORIGIN,
    "reflect_instruction": [
        {"instruction": "Describe a cat.", "input": "", "output": "It is a cat.\n\nIt purrs."},
        {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
        {"instruction": "Add up:", "input": "4 and 5", "output": "9"},
        {"instruction": "Failed.", "input": "", "output": "kept"},
    ],
    "reflect_response": [
        {"instruction": "Name it. ", "input": "a cat", "output": "A cat [End]"},
        {"instruction": "Add.", "input": "", "output": "two"},
        {"instruction": "Add.", "input": "", "output": "II"},
        {"instruction": "Failed.", "input": "", "output": "kept"},
    ],
    "reflect_both": [
        {"instruction": "Describe a cat.", "input": "", "output": "It purrs, mostly."},
        {"instruction": "Add 1 and 2.", "input": "", "output": "1 + 2 = 3"},
        {"instruction": "Add up:", "input": "4 and 5", "output": "4 + 5 = 9"},
        {"instruction": "Failed.", "input": "", "output": "done"},
    ],
}


@pytest.fixture(params=["parquet", "hub layout", "json", "jsonl"])
def released(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write the published sets' shape: a struct `data` in a table for each version."""
    folder = tmp_path / "released"
    place = folder / "data" if request.param == "hub layout" else folder
    place.mkdir(parents=True)
    for name, pairs in RELEASED.items():
        lines = [{"data": pair} for pair in pairs]
        if request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(lines), place / f"{name}.parquet")
        elif request.param == "hub layout":
            for part in (0, 1):
                file = place / f"{name}-0000{part}-of-00002-0a1b.parquet"
                pq.write_table(pa.Table.from_pylist(lines[2 * part : 2 * part + 2]), file)
        elif request.param == "json":
            (place / f"{name}.json").write_text(json.dumps(lines))
        else:
            (place / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def _released(folder: Path, **fields: Any) -> ReplayTeacher:
    settings = {"columns": PAIRS, "versions": TABLES, "row": "content", "unchanged": "reject"} | fields
    return ReplayTeacher(path=folder, **settings)


def _ids(rows: list[dict[str, str]]) -> list[str]:
    return list(numbered(content_id(row["instruction"], row["input"], row["output"]) for row in rows))


def _request(row_id: str, position: int, phase: Phase, base: Version, shown: dict[str, str], **more: Any) -> Request:
    texts = {"instruction": shown["instruction"], "response": shown["output"], "messages": []}
    return Request(row_id=row_id, position=position, phase=phase, base=base, **texts, **more)


def _asked(rows: list[dict[str, str]], phase: Phase, base: Version, table: str = "origin") -> list[Request]:
    shown = [RELEASED[table][ORIGIN.index(row)] for row in rows]
    return [_request(*pair, phase, base, one) for one, pair in zip(shown, _numbered(rows), strict=True)]


def _numbered(rows: list[dict[str, str]]) -> list[tuple[str, int]]:
    return [(identifier, 100 + place) for place, identifier in enumerate(_ids(rows))]


def _replies(teacher: ReplayTeacher, requests: list[Request], tmp_path: Path) -> list[Reply]:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        return teacher.replies(requests, ledger)


def _read(phase: Phase, replies: list[Reply]) -> list[tuple[str, str] | str]:
    """Read replies as the reflection stage does: the pair, or the reason why there is none."""
    parsed = [parse(phase, reply.text, reply.finish_reason) if reply.status == "ok" else None for reply in replies]
    return [
        reply.status if one is None else (one.instruction, one.response) if one.status == "ok" else one.status
        for reply, one in zip(replies, parsed, strict=True)
    ]


def test_released_pairs_come_back_whole_by_content(released: Path, tmp_path: Path) -> None:
    teacher = _released(released)
    on_instruction = _replies(teacher, _asked(ORIGIN, "instruction", "original"), tmp_path)
    assert _read("instruction", on_instruction) == [
        ("Describe a cat.", "It is a cat.\n\nIt purrs."),
        ("Add 1 and 2.", "3"),
        ("Add up:\n4 and 5", "9"),
        "unchanged",
    ]
    on_response = _replies(teacher, _asked(ORIGIN, "response", "original"), tmp_path)
    assert _read("response", on_response) == ["holds_markers", ("", "two"), ("", "II"), "unchanged"]
    both = _replies(teacher, _asked(ORIGIN, "response", "instruction", "reflect_instruction"), tmp_path)
    answers = ["It purrs, mostly.", "1 + 2 = 3", "4 + 5 = 9", "done"]
    assert _read("response", both) == [("", answer) for answer in answers]


def test_released_content_finds_rows_in_any_order_and_subset(released: Path, tmp_path: Path) -> None:
    rows = [ORIGIN[1], ORIGIN[0], {"instruction": "new", "input": "", "output": "row"}]
    requests = [*_asked(rows[:2], "instruction", "original")]
    requests.append(_request(_ids(rows)[2], 0, "instruction", "original", rows[2]))
    replies = _read("instruction", _replies(_released(released), requests, tmp_path))
    assert replies == [("Add 1 and 2.", "3"), ("Describe a cat.", "It is a cat.\n\nIt purrs."), "not_recorded"]


def test_released_more_duplicates_than_recorded_are_not_recorded(released: Path, tmp_path: Path) -> None:
    requests = _asked([ORIGIN[1]] * 3, "instruction", "original")
    assert _read("instruction", _replies(_released(released), requests, tmp_path))[2] == "not_recorded"


def test_released_other_samples_and_missing_versions_are_not_recorded(released: Path, tmp_path: Path) -> None:
    teacher = _released(released, versions={**TABLES, "response": None})
    (row_id, position), *_ = _numbered(ORIGIN[:1])
    requests = [
        _request(row_id, position, "response", "original", ORIGIN[0]),
        _request(row_id, position, "instruction", "original", ORIGIN[0], sample=1),
    ]
    assert [reply.status for reply in _replies(teacher, requests, tmp_path)] == ["not_recorded", "not_recorded"]


def test_released_unchanged_pairs_are_served_where_that_is_wanted(released: Path, tmp_path: Path) -> None:
    requests = _asked([ORIGIN[3]], "instruction", "original")
    replies = _replies(_released(released, unchanged="serve"), requests, tmp_path)
    assert _read("instruction", replies) == [("Failed.", "kept")]


def test_released_rows_by_position_follow_the_tables_order(released: Path, tmp_path: Path) -> None:
    requests = [_request("x", place, "response", "original", ORIGIN[0]) for place in (2, 1, 4)]
    replies = _read("response", _replies(_released(released, row="position"), requests, tmp_path))
    assert replies == [("", "II"), ("", "two"), "not_recorded"]


def test_released_identity_is_the_tables_content_and_their_reading(released: Path) -> None:
    before = identity(_released(released))
    assert identity(_released(released.rename(released.with_name("moved")))) == before
    moved = released.with_name("moved")
    assert identity(_released(moved, unchanged="serve")) != before
    file = next(file for file in moved.rglob("*") if file.name.startswith("reflect_both"))
    file.write_bytes(file.read_bytes() + b" ")
    assert identity(_released(moved)) != before


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"versions": {**TABLES, "both": "nowhere"}},
            "has no table nowhere .*null for a version that was not recorded",
        ),
        ({"columns": {**PAIRS, "response": "data.answer"}}, "record 0 has no column 'answer'; it has 'in"),
    ],
)
def test_released_wrong_mapping_is_refused(released: Path, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _replies(_released(released, **fields), _asked(ORIGIN, "response", "original"), tmp_path)


def test_released_single_file_is_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[]")
    with pytest.raises(UserError, match=r"is one file, but columns\.version is not set"):
        _released(tmp_path / "rows.json").check()
    with pytest.raises(UserError, match=r"is not a folder: give the folder with a file for each version"):
        _released(tmp_path / "no" / "such").check()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": {"row": "index"}}, "should name the column of the reply"),
        ({"row": "content"}, "row=content needs a table for each version"),
        ({"columns": {"reply": "reply"}, "row": "id"}, "row=id needs columns.row"),
    ],
)
def test_replay_settings_that_do_not_go_together_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ReplayTeacher(path=Path("x.jsonl"), **fields)


def test_replay_rows_by_id_and_other_columns_are_found(tmp_path: Path) -> None:
    file = tmp_path / "recorded.parquet"
    lines = [{"id": "ab-2", "which": "q", "text": "the reply"}, {"id": "cd", "which": "a", "text": "another"}]
    pq.write_table(pa.Table.from_pylist(lines), file)
    teacher = ReplayTeacher(
        path=file,
        row="id",
        columns={"row": "id", "version": "which", "reply": "text"},
        versions={"instruction": "q", "response": "a"},
    )
    requests = [
        _request("cd", 0, "response", "original", ORIGIN[0]),
        _request("ab-2", 0, "instruction", "original", ORIGIN[0]),
        _request("ab", 0, "instruction", "original", ORIGIN[0]),
    ]
    replies = _replies(teacher, requests, tmp_path)
    assert [reply.text or reply.status for reply in replies] == ["another", "the reply", "not_recorded"]


def test_replay_second_record_of_a_row_and_version_is_refused(tmp_path: Path) -> None:
    record = json.dumps({"index": 3, "kind": "instruction", "reply": "a"})
    (tmp_path / "twice.jsonl").write_text(f"{record}\n{record}\n")
    request = _request("x", 3, "instruction", "original", ORIGIN[0])
    with pytest.raises(UserError, match=r"record 1 is the second one for row 3 and the kind 'instr.*columns\.sample"):
        _replies(ReplayTeacher(path=tmp_path / "twice.jsonl"), [request], tmp_path)


def test_replay_unknown_hub_data_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"teacher\.path=org/name is neither a file or folder nor in"):
        _released(Path("org/name")).check()


def test_hub_records_reads_a_split_of_the_hubs_layout(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name in ("origin", "reflect_both"):
        lines = [{"data": pair} for pair in RELEASED[name]]
        pq.write_table(pa.Table.from_pylist(lines), tmp_path / "set" / "data" / f"{name}-00000-of-00001.parquet")
    read = list(hub_records(str(tmp_path / "set"), None, "reflect_both"))
    assert read == [{"data": pair} for pair in RELEASED["reflect_both"]]
    with pytest.raises(UserError, match="the split reflect_response can't be loaded"):
        list(hub_records(str(tmp_path / "set"), None, "reflect_response"))


PIECES = st.sampled_from(
    ["[End]", "[end of answer]", "[New Answer]", "[[New Instruction]]", "[/Answer]", "\\[End\\]", "x[end]", "End", "> ",
     "**[Better Answer]**:", "Better Answer:", "# New Answer", "- ", "1. ", "your answer is", "[Endless]", "* a *",
     "```", "~~~~", "```python", "\n", "\n\n", " ", "text", "x[new_index]", "[end-to-end]", "\r\n", "\t", "\u00a0"]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text(max_size=8), min_size=1, max_size=12).map("".join)


@example(instruction="Mend it:\n```\nx = 1", response="So:\n```\nx = 2\n```", phase="instruction")
@example(instruction="Mend it:\n```\nx = 1\n~~~", response="So:\n```\nx = 2\n```", phase="instruction")
@example(instruction="Mend it:\n```\nx = 1\n```", response="So:\n```\nx = 2", phase="instruction")
@given(instruction=TEXTS, response=TEXTS, phase=st.sampled_from(["instruction", "response"]))
def test_rendered_pair_is_read_back_exactly_or_not_served(
    tmp_path_factory: pytest.TempPathFactory, instruction: str, response: str, phase: Phase
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    pair = {"instruction": instruction, "input": "", "output": response}
    for table in RELEASED:
        (folder / f"{table}.jsonl").write_text(json.dumps({"data": pair}))
    teacher = _released(folder, row="position", unchanged="serve")
    (reply,) = _replies(teacher, [_request("x", 0, phase, "original", ORIGIN[0])], folder)
    if reply.status != "ok":
        assert reply.status == "holds_markers" and any(sign in instruction + response for sign in "[`~")
        return
    parsed = parse(phase, reply.text, reply.finish_reason)
    if not response.strip() or (phase == "instruction" and not instruction.strip()):
        assert parsed.status == "empty_segment"
    elif parsed.status == "ok":
        wanted = instruction.strip() if phase == "instruction" else ""
        assert (parsed.instruction, parsed.response) == (wanted, response.strip())
    else:
        assert parsed.status in ("refused", "echoed")
