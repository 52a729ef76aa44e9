"""MT-Bench: two turns, each graded alone, through a real server and from a recording."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.evaluator.mt_bench import MTBench
from srecycle.evaluator.unwritten import unwritten
from srecycle.judge import Judge
from srecycle.judge.replay import ReplayJudge
from srecycle.store import Store
from tests.conftest import ROOT
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import LONG, USD, WORDINGS, begun, jsonl, served_judge, small_subject

QUESTIONS: tuple[dict[str, Any], ...] = (
    {"question_id": 7, "category": "math", "turns": ["what is 3 plus 4", "what is 5 plus 6"]},
    {"question_id": 9, "category": "writing", "turns": ["reverse the list 1 2 3", LONG]},
    {"question_id": 8, "category": "writing", "turns": [LONG, "what is 9 minus 2"]},
)
REFERENCE = {"question_id": 7, "choices": [{"index": 0, "turns": ["it is 7", "it is 11"]}]}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def _evaluator(folder: Path, judge: Judge, **fields: Any) -> MTBench:
    """Ask three questions, of which one lacks room for its second turn, and one for both."""
    settings: dict[str, Any] = {
        "prompts": jsonl(folder / "question.jsonl", *QUESTIONS),
        "judge": judge,
        "reference_answers": jsonl(folder / "reference.jsonl", REFERENCE),
        "reference_categories": ("math",),
        "max_new_tokens": 8,
    }
    return MTBench(**settings | WORDINGS | fields)


def _graded(body: Mapping[str, Any]) -> str:
    """Grade by which wording asks."""
    grades = {"1r": 8, "2r": 6, "1": 3, "2": 10}
    return f"Well.\n[[{grades[body['messages'][-1]['content'].partition('|')[0]]}]]"


def test_mt_bench_grades_each_turn_and_counts_what_has_no_grade(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_graded) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        evaluator.check()
        found = evaluator.evaluate(subject, work := begun(store, "1"))
        assert server.billed.total() == 3
    assert (found["overall/asked"], found["overall/judged"], found["overall/score"]) == (6, 3, pytest.approx(17 / 3))
    assert (found["turn_1/score"], found["turn_2/score"]) == (5.5, 6.0)
    assert (found["overall/category=math/score"], found["overall/category=writing/score"]) == (7.0, 3.0)
    assert (found["overall/unjudged/too_long"], found["overall/unjudged/no_earlier_answer"]) == (2, 1)
    assert work.notes["calls"]["usd_paid"] == pytest.approx(3 * USD)
    lines = pq.read_table(work.folder / "judgments.parquet").to_pylist()
    assert [(line["turn"], line["grade"], line["reference"]) for line in lines] == [
        (1, 8.0, True),
        (2, 6.0, True),
        (1, 3.0, False),
        (2, None, False),
        (1, None, False),
        (2, None, False),
    ]
    assert [line["reply"] for line in lines][:3] == ["Well.\n[[8]]", "Well.\n[[6]]", "Well.\n[[3]]"]


def test_mt_bench_second_turn_shows_the_first_answer_and_both_references(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    shown = list[str]()

    def told(body: Mapping[str, Any]) -> str:
        shown.append(body["messages"][-1]["content"])
        return "[[5]]"

    with FaultyServer(text=told) as server:
        _evaluator(tmp_path, served_judge(server)).evaluate(subject, work := begun(store, "1"))
    answers = [one["text"] for one in pq.read_table(work.folder / "answers.parquet").to_pylist()]
    assert sorted(shown) == sorted(
        [
            f"1r|what is 3 plus 4|it is 7|{answers[0]}",
            f"2r|what is 3 plus 4|it is 7|{answers[0]}|what is 5 plus 6|it is 11|{answers[1]}",
            f"1|reverse the list 1 2 3|{answers[2]}",
        ]
    )


def test_mt_bench_grades_that_cannot_be_read_are_counted(tmp_path: Path, store: Store, subject: Subject) -> None:
    def told(body: Mapping[str, Any]) -> str:
        return "[[99]]" if body["messages"][-1]["content"].startswith("1r") else "a ten, as the answer asks"

    with FaultyServer(text=told) as server:
        found = _evaluator(tmp_path, served_judge(server)).evaluate(subject, begun(store, "1"))
    assert (found["overall/judged"], found["overall/unjudged/out_of_range"], found["overall/unjudged/unparsed"]) == (
        0,
        1,
        2,
    )
    assert "overall/score" not in found


def test_mt_bench_identity_is_content_judge_and_wordings(tmp_path: Path) -> None:
    with FaultyServer() as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        others = [
            replace(evaluator, batch_tokens=1),
            replace(evaluator, judge=served_judge(server, model="n")),
            replace(evaluator, second="!" + WORDINGS["second"]),
            replace(evaluator, reference_answers=None),
        ]
        keys = [fingerprint(identity(one)) for one in (evaluator, *others)]
        assert keys[0] == keys[1] and len(set(keys)) == 4
        jsonl(tmp_path / "reference.jsonl", {**REFERENCE, "choices": [{"turns": ["7", "11"]}]})
        assert fingerprint(identity(evaluator)) != keys[0]


def test_mt_bench_wrong_settings_are_refused_before_the_run(tmp_path: Path) -> None:
    def checked(**fields: Any) -> None:
        replace(evaluator, **fields).check()

    with FaultyServer() as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        with pytest.raises(ValidationError, match="ref_answer_2"):
            checked(second_with_reference=WORDINGS["second_with_reference"].replace("{ref_answer_2}", ""))
        with pytest.raises(UserError, match="1 questions of math have no reference answers in reference_answers=None"):
            checked(reference_answers=None)
        with pytest.raises(UserError, match="2 questions of writing have no reference answers"):
            checked(reference_categories=("writing",))
        checked(reference_answers=None, reference_categories=())
        half = jsonl(tmp_path / "half.jsonl", {**REFERENCE, "choices": [{"turns": ["it is 7"]}]})
        with pytest.raises(UserError, match="1 questions of math have no reference answers"):
            checked(reference_answers=half)
        with pytest.raises(UserError, match="record 0 is no reference answer"):
            checked(reference_answers=jsonl(tmp_path / "bad.jsonl", {"question_id": 7, "choices": []}))


def test_mt_bench_published_questions_are_graded_beside_their_references(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/mt_bench"
    shipped = yaml.safe_load((ROOT / "conf/evaluator/mt_bench.yaml").read_text())
    settings = {name: value for name, value in shipped.items() if name not in ("defaults", "_target_", "judge")}
    files = {"prompts": folder / "question.jsonl", "reference_answers": folder / "reference_answer_gpt-4.jsonl"}
    evaluator = MTBench(**settings | files, judge=ReplayJudge(paths=(tmp_path / "nowhere.json",)))
    (questions,) = evaluator.questions().values()
    (gradings,) = evaluator.items({"prompts": unwritten(questions)}).values()
    assert len(questions) == 80 and len(gradings) == 160 and all(len(evaluator.cases(one)) == 1 for one in gradings)
    shown = [one.category for one in gradings if one.beside_reference]
    assert {name: shown.count(name) for name in set(shown)} == {"math": 20, "reasoning": 20, "coding": 20}
    overtaken = next(one for one in gradings if "overtaken the second person" in one.question and one.turn == 2)
    assert "now second place" in overtaken.texts["ref_answer_1"] and "last" in overtaken.texts["ref_answer_2"]
    (case,) = evaluator.cases(overtaken)
    assert overtaken.texts["ref_answer_2"] in case.messages[-1]["content"]
