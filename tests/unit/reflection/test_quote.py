"""What a reflection may cost, told before anything is sent."""

import json
from pathlib import Path
from typing import Any

import pytest

from srecycle.data import Source
from srecycle.data.alpaca import Alpaca
from srecycle.engine.local import LocalEngine
from srecycle.reflection import Reflect, Reflection
from srecycle.reflection.quote import REPLY_TOKENS, Quote, quote
from srecycle.teacher import Teacher
from srecycle.teacher.openai import OpenAITeacher
from srecycle.teacher.scripted import ScriptedTeacher

PAID = OpenAITeacher(model="m", usd_per_million_input_tokens=2.0, usd_per_million_output_tokens=10.0)


def _reflections(tmp_path: Path, teacher: Teacher) -> tuple[Reflect, Reflect]:
    (tmp_path / "rows.json").write_text(json.dumps([{"instruction": "i" * 40, "output": "o" * 20}] * 3))
    wording = Reflection(
        system="s" * 8,
        instruction_request="{instruction}{response}",
        response_request="{instruction}{response}",
        input_block="",
        history_block="",
        instruction_criteria=(),
        response_criteria=(),
    )
    source = Source(data=Alpaca(path=tmp_path / "rows.json"))
    parts: dict[str, Any] = {"rows": source, "teacher": teacher, "reflection": wording, "engine": LocalEngine()}
    first = Reflect(phase="instruction", **parts)
    return first, Reflect(phase="response", instructions=first, **parts)


def test_quote_counts_requests_tokens_and_dollars_by_hand(tmp_path: Path) -> None:
    first, second = _reflections(tmp_path, PAID)
    written = 3 * REPLY_TOKENS
    assert quote(first) == Quote(
        requests=3, input_tokens=51, output_tokens=written, usd=pytest.approx(51 * 2e-6 + written * 10e-6)
    )
    assert quote(second) == Quote(
        requests=6, input_tokens=102, output_tokens=2 * written, usd=pytest.approx(102 * 2e-6 + 2 * written * 10e-6)
    )


def test_quote_scripted_teacher_is_free(tmp_path: Path) -> None:
    assert [quote(stage).usd for stage in _reflections(tmp_path, ScriptedTeacher())] == [0.0, 0.0]
