"""Judged evaluators of a tiny student, and judges behind a real server: what their tests have in common.

`KINDS` has every evaluator that puts answers before a judge, each with a few questions, most of which can be judged.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from srecycle.evaluator.alpaca_eval import AlpacaEval
from srecycle.evaluator.base import Subject
from srecycle.evaluator.judging import Judging
from srecycle.evaluator.mt_bench import MTBench
from srecycle.evaluator.pairwise import Pairwise
from srecycle.judge import Judge, TeacherJudge
from srecycle.stage import Work
from srecycle.store import Store
from srecycle.student import Student
from srecycle.student.template import PromptTemplate
from srecycle.teacher.openai import OpenAITeacher
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer

USD = (700 * 2 + 300 * 10) / 1e6
"""A reply's price: the server's usage at the judge's prices."""

QUESTIONS = ("what is 3 plus 4", "reverse the list 1 2 3", "what is 9 minus 2")
LONG = "what is " * 40
"""A question that leaves no room for an answer."""

Told = Callable[[Mapping[str, Any]], str]


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


def shown(body: Mapping[str, Any]) -> str:
    """Return what the judge is sent."""
    return str(body["messages"][-1]["content"])


PAIR = "{mark} {question} <1>{answer_1}<2>{answer_2}"
PREFERENCE = "{mark} {instruction} <1>{output_1}<2>{output_2}"
WORDINGS = {
    "system": "be fair",
    "first": "1|{question}|{answer}",
    "first_with_reference": "1r|{question}|{ref_answer_1}|{answer}",
    "second": "2|{question_1}|{answer_1}|{question_2}|{answer_2}",
    "second_with_reference": "2r|{question_1}|{ref_answer_1}|{answer_1}|{question_2}|{ref_answer_2}|{answer_2}",
}
DAVINCI = "text_davinci_003"


def pairwise(folder: Path, judge: Judge, **fields: Any) -> Pairwise:
    """Compare three answers on a set with those of somebody who has stars before theirs."""
    given = ({"text": one, "output": f"* {one}"} for one in QUESTIONS)
    settings: dict[str, Any] = {
        "prompts": {"v": jsonl(folder / "v.jsonl", *({"text": one, "kind": one.split()[0]} for one in QUESTIONS))},
        "against": str(jsonl(folder / "other.jsonl", *given)),
        "judge": judge,
        "system": "",
        "request": PAIR,
        "store": folder / "store",
        "max_new_tokens": 8,
    }
    return Pairwise(**settings | fields)


def alpaca_eval(folder: Path, judge: Judge, **fields: Any) -> AlpacaEval:
    """Compare three outputs with a reference's, which have stars before them."""
    given = ({"instruction": one, "output": f"* {one}", "generator": DAVINCI} for one in QUESTIONS)
    asked = ({"instruction": one, "dataset": one.split()[0]} for one in QUESTIONS)
    settings: dict[str, Any] = {
        "prompts": jsonl(folder / "set.jsonl", *asked),
        "version": 1,
        "judge": judge,
        "system": "",
        "request": PREFERENCE,
        "reference_outputs": jsonl(folder / "reference.jsonl", *given),
        "max_new_tokens": 8,
    }
    return AlpacaEval(**settings | fields)


def mt_bench(folder: Path, judge: Judge, **fields: Any) -> MTBench:
    """Grade two answers each to two questions, one of them beside references."""
    asked = (
        {"question_id": 7, "category": "math", "turns": [QUESTIONS[0], "what is 5 plus 6"]},
        {"question_id": 9, "category": "writing", "turns": [QUESTIONS[1], QUESTIONS[2]]},
    )
    reference = {"question_id": 7, "choices": [{"index": 0, "turns": ["it is 7", "it is 11"]}]}
    settings: dict[str, Any] = {
        "prompts": jsonl(folder / "question.jsonl", *asked),
        "judge": judge,
        "reference_answers": jsonl(folder / "reference_answers.jsonl", reference),
        "reference_categories": ("math",),
        "max_new_tokens": 8,
    }
    return MTBench(**settings | WORDINGS | fields)


def _points(body: Mapping[str, Any]) -> tuple[int, int]:
    """Count the stars of both answers, and believe one that has references."""
    first, second = shown(body).partition("<1>")[2].split("<2>")
    found = [text.count("*") + 5 * ("[1] Smith" in text) for text in (first, second)]
    return found[0], found[1]


def scores(body: Mapping[str, Any]) -> str:
    """Score both answers by their points."""
    first, second = _points(body)
    return f"{9 if first > second else 5} {9 if second > first else 5}\nby stars"


def prefers(body: Mapping[str, Any]) -> str:
    """Name the answer with more points."""
    first, second = _points(body)
    return "1\nstars" if first > second else "2\nstars" if second > first else "tie\nstars"


def grades(body: Mapping[str, Any]) -> str:
    """Give a 4, and an 8 to an answer that has references."""
    return f"Well.\n[[{8 if '[1] Smith' in shown(body) else 4}]]"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """An evaluator: how it is made, what its judge says, what its metrics begin with and are about.

    `calls` judgments are made of `items` answers to `questions`; `figure` is the one that a judgment moves, and
    `wording` the field of a wording.
    """

    build: Callable[..., Judging[Any]]
    told: Told
    head: str
    figure: str
    value: float
    wording: str
    calls: int
    items: int
    questions: int

    @property
    def a_case(self) -> int:
        """How many judgments an item takes."""
        return self.calls // self.items


KINDS: Mapping[str, Kind] = {
    "pairwise": Kind(
        build=pairwise,
        told=scores,
        head="v",
        figure="win_rate",
        value=0.0,
        wording="request",
        calls=6,
        items=3,
        questions=3,
    ),
    "alpaca_eval": Kind(
        build=alpaca_eval,
        told=prefers,
        head="v1",
        figure="win_rate",
        value=0.0,
        wording="request",
        calls=3,
        items=3,
        questions=3,
    ),
    "mt_bench": Kind(
        build=mt_bench,
        told=grades,
        head="overall",
        figure="score",
        value=4.0,
        wording="first",
        calls=4,
        items=4,
        questions=2,
    ),
}
