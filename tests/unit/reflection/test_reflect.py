"""The stage that asks the teacher: one candidate for every base, usable or with its reason."""

import json
from pathlib import Path

import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection
from srecycle.rows import OK
from srecycle.stage import materialize
from srecycle.store import Store
from srecycle.teacher.replay import ReplayTeacher

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


@pytest.fixture
def wording() -> Reflection:
    return Reflection(
        system="s",
        instruction_request="{instruction}{response}",
        response_request="{instruction}{response}",
        input_block="",
        history_block="",
        instruction_criteria=(),
        response_criteria=(),
    )


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
