"""A tiny student to be judged, and a judge behind a real server."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from srecycle.evaluator.base import Subject
from srecycle.judge import TeacherJudge
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.student import Student
from srecycle.student.template import PromptTemplate
from srecycle.teacher.openai import OpenAITeacher
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer

USD = (700 * 2 + 300 * 10) / 1e6
"""A reply's price: the server's usage at the judge's prices."""


def small_subject(max_length: int = 64) -> Subject:
    """Return the untuned weak base of the micro-world."""
    template = PromptTemplate(
        user="question : {instruction} reply :", user_with_input="{instruction} {input} :", response_prefix=" "
    )
    student = Student(path=str(ROOT / "srecycle/testbed/bases/weak"), device="cpu", threads=1, max_length=max_length)
    return Subject(student=student, template=template, adapter=None, training=pa.table({}))


def served_judge(server: FaultyServer, **fields: Any) -> TeacherJudge:
    """Return a judge that asks the server, and keeps judgments that fail as failed."""
    settings = {"model": "m", "base_url": server.url, "provider": "here", "temperature": 0.0, "keep_failed": True}
    prices = {"usd_per_million_input_tokens": 2.0, "usd_per_million_output_tokens": 10.0}
    return TeacherJudge(teacher=OpenAITeacher(**settings | prices | fields))


def jsonl(path: Path, *records: Mapping[str, Any]) -> Path:
    """Write records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def begun(store: Store, key: str) -> Work:
    """Return the work of an evaluation that begins."""
    folder, scratch, _ = store.begin("evaluate", key)
    return Work(store=store, folder=folder, scratch=scratch)
