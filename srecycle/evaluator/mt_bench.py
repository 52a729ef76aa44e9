"""MT-Bench: a judge grades answers to questions of two turns from 1 to 10 (arXiv:2306.05685; table 5 of the paper).

In: the 80 questions, whose second turn the subject is asked after its own answer to the first, in its template. Each
answer is graded alone; the second one with the whole conversation before it. Questions of `reference_categories` are
graded beside a reference answer, found by `question_id`. Out: `overall`, `turn_1`, `turn_2` and `category/NAME`, each a
`score` with what was asked and judged; answers without a grade are counted with their reason.

Kept: `answers.parquet`, and `judgments.parquet` with every raw reply (a recording that judge=replay reads).

FastChat draws answers at a temperature of each category's own (0.7 for writing and roleplay, 0 to 0.1 for the rest);
ours have one temperature, the configured one.

Identity: the content of questions and references, how answers are generated, the judge and the wordings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from srecycle.config import InputPath, component
from srecycle.data.files import records
from srecycle.digest import file_digest
from srecycle.errors import UserError
from srecycle.evaluator.answers import Answer, Answering, read
from srecycle.evaluator.base import Subject
from srecycle.evaluator.one_set import OneSet
from srecycle.evaluator.prompts import Prompt, read_prompts
from srecycle.evaluator.unwritten import unwritten
from srecycle.judge import Case, Judge, asking, grades
from srecycle.judge.base import require_judged
from srecycle.judge.grades import Grading, metrics_of
from srecycle.judge.quote import quoted
from srecycle.judge.wording import messages
from srecycle.placeholders import showing
from srecycle.progress import say
from srecycle.reflection.prompts import Wording
from srecycle.reflection.quote import Quote
from srecycle.rows import OK
from srecycle.stage import Metrics, Work
from srecycle.store import Store

_TURNS = 2
_ID = "question_id"

_FIRST = ("question", "answer")
_SECOND = ("question_1", "answer_1", "question_2", "answer_2")
_REFERENCES = ("ref_answer_1", "ref_answer_2")
First = Annotated[Wording, showing(*_FIRST)]
FirstWithReference = Annotated[Wording, showing(*_FIRST, _REFERENCES[0])]
Second = Annotated[Wording, showing(*_SECOND)]
SecondWithReference = Annotated[Wording, showing(*_SECOND, *_REFERENCES)]

_TEXT = pa.string()
GRADE_SCHEMA = pa.schema(
    [
        pa.field("id", _TEXT, False),
        pa.field("position", pa.int64(), False),
        pa.field("turn", pa.int64(), False),
        pa.field("category", _TEXT, False),
        pa.field("status", _TEXT, False),
        pa.field("grade", pa.float64()),
        pa.field("reference", pa.bool_(), False),
        pa.field("question", _TEXT, False),
        pa.field("answer", _TEXT, False),
        pa.field("reply", _TEXT, False),
        pa.field("finish_reason", _TEXT, False),
        pa.field("judge", _TEXT, False),
    ]
)
"""A line for each answer; `turn` counts from 1, and `question` is all that was said before the answer."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt, with the reference's answers to its turns where it is graded beside them (else none)."""

    prompt: Prompt
    references: tuple[str, ...] = ()


@component
class MTBench(Answering):
    """Grades answers to the prompts (one file); `reference_answers` are reference answers in FastChat's format.

    The wordings have FastChat's placeholders, and each can be `file:PATH`: `first` for a first turn, `second` for a
    second one, and the same `with_reference`.
    """

    revision: ClassVar[int] = 2

    prompts: OneSet
    judge: Judge
    system: Wording
    first: First
    first_with_reference: FirstWithReference
    second: Second
    second_with_reference: SecondWithReference
    category: str | None = "category"
    reference_answers: InputPath | None = None
    reference_categories: tuple[str, ...] = ("math", "reasoning", "coding")

    def resolved(self) -> Mapping[str, Any]:
        """Questions and references stand as their content."""
        return {
            **super().resolved(),
            "reference_answers": self.reference_answers and file_digest(self.reference_answers),
        }

    def check(self) -> None:
        """Raise UserError where a question can't be asked, a reference is missing, or the judge lacks something."""
        self.judge.check()
        assert self.questions

    @cached_property
    def questions(self) -> list[Question]:
        """The questions in order. Raises UserError where they have more than two turns, or lack a reference."""
        (path,) = self.prompts.values()
        prompts = read_prompts(path, self.category)
        if long := [one for one in prompts if len(one.turns) > _TURNS]:
            raise UserError(
                f"{path}: question {long[0].position} has {len(long[0].turns)} turns, {_TURNS} can be graded"
            )
        wanted = [one for one in prompts if one.category in self.reference_categories]
        known = _references(path, self.reference_answers) if wanted and self.reference_answers else {}
        if missing := [one for one in wanted if len(known.get(one.id, ())) < len(one.turns)]:
            raise UserError(
                f"{len(missing)} questions of {', '.join(self.reference_categories)} have no reference answers in "
                f"reference_answers={self.reference_answers}: give a file of them, or fewer reference_categories"
            )
        shown = {one.id for one in wanted}
        return [Question(prompt=one, references=known[one.id] if one.id in shown else ()) for one in prompts]

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Answer both turns, have each answer graded, and count. Paid replies stand in the ledger first."""
        (answers,) = self.answered(subject, work).values()
        gradings = self.gradings(answers)
        with asking(self.judge, work) as ask:
            replies = iter(ask([one.case for one in gradings if one.case], "judging MT-Bench"))
        graded = [_graded(one, next(replies)) if one.case else one for one in gradings]
        require_judged([one.status for one in graded if one.case], "answers")
        work.write("judgments", pa.Table.from_pylist([one.line for one in graded], schema=GRADE_SCHEMA))
        metrics = metrics_of(graded)
        _tell(metrics)
        return metrics

    def quote(self, subject: Subject | None, store: Store | None) -> Quote:
        """Return what grading would cost; answers that are not generated yet are taken to be of a usual length."""
        (known,) = self.known(subject, store).values()
        prompts = [one.prompt for one in self.questions]
        gradings = self.gradings(read(known.table("answers")) if known else unwritten(prompts))
        cases = [one.case for one in gradings if one.case]
        return quoted(self.judge, cases, store, estimated=0 if known else len(cases))

    def gradings(self, answers: Sequence[Answer]) -> list[Grading]:
        """Return what is to be graded: a line for each turn of each question, in order."""
        said: dict[str, list[Answer]] = {}
        for answer in answers:
            said.setdefault(answer.id, []).append(answer)
        return [
            self._grading(question, said[question.prompt.id][: turn + 1])
            for question in self.questions
            for turn in range(len(question.prompt.turns))
        ]

    def _grading(self, question: Question, said: Sequence[Answer]) -> Grading:
        """Return the grading of the last of these answers."""
        prompt, last = question.prompt, said[-1]
        before = "".join(f"{asked}\n\n{one.text}\n\n" for asked, one in zip(_asked(prompt), said[:-1], strict=False))
        whole = before + _asked(prompt)[len(said) - 1]
        case = Case(
            id=prompt.id,
            position=prompt.position,
            question=whole,
            answers=(last.text,),
            messages=self._messages(question, said),
        )
        return Grading(
            id=prompt.id,
            position=prompt.position,
            turn=len(said),
            category=prompt.category,
            question=whole,
            answer=last.text,
            reference=bool(question.references),
            case=case if last.status == OK else None,
            status=last.status,
        )

    def _messages(self, question: Question, said: Sequence[Answer]) -> list[dict[str, str]]:
        """Return the messages that ask for a grade of the last of these answers."""
        references = dict(zip(_REFERENCES, question.references, strict=False))
        asked = _asked(question.prompt)
        if len(said) == 1:
            request = self.first_with_reference if references else self.first
            return messages(self.system, request, {"question": asked[0], "answer": said[0].text, **references})
        request = self.second_with_reference if references else self.second
        values = dict(zip(_SECOND, (asked[0], said[0].text, asked[1], said[1].text), strict=True))
        return messages(self.system, request, values | references)


def _asked(prompt: Prompt) -> tuple[str, ...]:
    """Return the turns as a judge is shown them."""
    return (prompt.question, *prompt.turns[1:])


def _references(questions: Path, reference: Path) -> dict[str, tuple[str, ...]]:
    """Return the reference answers by the questions' content. Raises UserError where the file has another form."""
    known: dict[str, tuple[str, ...]] = {}
    for number, record in enumerate(records(reference)):
        try:
            turns = record["choices"][0]["turns"]
            known[str(record[_ID])] = tuple(map(str, turns))
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(
                f"{reference}: record {number} is no reference answer: expected {_ID}, and choices with turns"
            ) from error
    # `category` is any column's value: here the questions' numbers.
    return {one.id: known[one.category] for one in read_prompts(questions, _ID) if one.category in known}


def _graded(one: Grading, reply: Any) -> Grading:
    scored = grades.read(reply)
    grade = scored.scores[0] if scored.scores else None
    return replace(one, status=scored.status, grade=grade, reply=reply)


def _tell(metrics: Metrics) -> None:
    """Say how it came out, and what has no grade."""
    scores = [f"{name} {metrics[f'{name}/score']:.2f}" for name in ("turn_1", "turn_2") if f"{name}/score" in metrics]
    overall = f", {metrics['overall/score']:.2f} overall ({', '.join(scores)})" if scores else ""
    prefix = "overall/unjudged/"
    left = [f"{count} {name.removeprefix(prefix)}" for name, count in metrics.items() if name.startswith(prefix)]
    without = f"; not judged: {', '.join(left)}" if left else ""
    say(f"  MT-Bench: {metrics['overall/judged']} judged of {metrics['overall/asked']} answers{overall}{without}")
