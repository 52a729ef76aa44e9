"""MT-Bench: a judge grades answers to questions of two turns from 1 to 10 (arXiv:2306.05685; table 5 of the paper).

In: the 80 questions, whose second turn the subject is asked after its own answer to the first, in its template. Each
answer is graded alone; the second one with the whole conversation before it. Questions of `reference_categories` are
graded beside a reference answer, found by `question_id`. Out: `overall`, `overall/category=NAME`, `turn_1`, `turn_2`,
each a `score` with what was asked and judged. The probes dress up the graded answer, of one turn a question, and tell
how far its grade moves (`overall/probe/NAME/shift`, in points).

FastChat draws answers at a temperature of each category's own (0.7 for writing and roleplay, 0 to 0.1 for the rest);
ours have one temperature, the configured one.

Identity: the content of questions and references, how answers are generated, the judge and the wordings.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pyarrow as pa
from pydantic import AfterValidator

from srecycle.config import InputPath, component
from srecycle.data.files import digest_of, records, text_of
from srecycle.errors import UserError
from srecycle.evaluator.answers import Answer
from srecycle.evaluator.judging import ASKED, NUMBER, REPLY, TEXT, Again, Judging, different, named
from srecycle.evaluator.one_set import OneSet
from srecycle.evaluator.prompts import Prompt, read_prompts
from srecycle.judge import Case
from srecycle.judge.decorations import Decoration
from srecycle.judge.grades import REFERENCES, Grading, figures
from srecycle.judge.wording import messages
from srecycle.placeholders import showing
from srecycle.reflection.prompts import Wording
from srecycle.stage import Metrics
from srecycle.teacher import Reply

_ID = "question_id"

_FIRST = ("question", "answer")
_SECOND = ("question_1", "answer_1", "question_2", "answer_2")
First = Annotated[Wording, showing(*_FIRST)]
FirstWithReference = Annotated[Wording, showing(*_FIRST, REFERENCES[0])]
Second = Annotated[Wording, showing(*_SECOND)]
SecondWithReference = Annotated[Wording, showing(*_SECOND, *REFERENCES)]


@component
class MTBench(Judging[Grading]):
    """Grades answers to the prompts (one file); `reference_answers` are reference answers in FastChat's format.

    The wordings have FastChat's placeholders, and each can be `file:PATH`: `first` for a first turn, `second` for a
    second one, and the same `with_reference`.
    """

    revision: ClassVar[int] = 3

    prompts: OneSet
    first: First
    first_with_reference: FirstWithReference
    second: Second
    second_with_reference: SecondWithReference
    category: str | None = "category"
    reference_answers: InputPath | None = None
    reference_categories: tuple[str, ...] = ("math", "reasoning", "coding")
    probes: Annotated[tuple[Decoration, ...], AfterValidator(different)] = ()

    what: ClassVar[str] = "answers"
    turns: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = pa.schema(
        [
            *ASKED,
            pa.field("turn", pa.int64(), False),
            pa.field("status", TEXT, False),
            pa.field("grade", NUMBER),
            pa.field("reference", pa.bool_(), False),
            *(pa.field(name, TEXT, False) for name in ("question", "answer")),
            *REPLY,
        ]
    )
    """A line for each answer; `turn` counts from 1, and `question` is all that was said before the answer."""

    def resolved(self) -> Mapping[str, Any]:
        """Questions and references stand as their content."""
        return {
            **super().resolved(),
            "reference_answers": self.reference_answers and digest_of(self.reference_answers, "reference_answers"),
        }

    def check(self) -> None:
        """Raise UserError where a question can't be asked, a reference is missing, or the judge lacks something."""
        super().check()
        assert self._references is not None

    @cached_property
    def _references(self) -> Mapping[str, tuple[str, ...]]:
        """The reference answers of the prompts that are graded beside some. Raises UserError where one is missing."""
        (path,) = self.prompts.values()
        wanted = [one for one in read_prompts(path, self.category) if one.category in self.reference_categories]
        known = _reference_answers(path, self.reference_answers) if wanted and self.reference_answers else {}
        if missing := [one for one in wanted if len(known.get(one.id, ())) < len(one.turns)]:
            raise UserError(
                f"{len(missing)} questions of {', '.join(self.reference_categories)} have no reference answers in "
                f"reference_answers={self.reference_answers}: give a file of them, or fewer reference_categories"
            )
        return {one.id: known[one.id] for one in wanted}

    def items(self, answers: Mapping[str, Sequence[Answer]]) -> dict[str, list[Grading]]:
        """Return what is to be graded: each turn of each question."""
        questions, found = self.questions(), dict[str, list[Grading]]()
        for name, some in answers.items():
            said: dict[str, list[Answer]] = {}
            for answer in some:
                said.setdefault(answer.id, []).append(answer)
            found[name] = [
                self._grading(prompt, said[prompt.id][: turn + 1])
                for prompt in questions[name]
                for turn in range(len(prompt.turns))
            ]
        return found

    def _grading(self, prompt: Prompt, said: Sequence[Answer]) -> Grading:
        """Return the grading of the last of these answers."""
        asked, last = (prompt.question, *prompt.turns[1:]), said[-1]
        before = "".join(f"{question}\n\n{one.text}\n\n" for question, one in zip(asked, said[:-1], strict=False))
        texts = [text for question, one in zip(asked, said, strict=False) for text in (question, one.text)]
        names = _FIRST if len(said) == 1 else _SECOND
        references = dict(zip(REFERENCES, self._references.get(prompt.id, ()), strict=False))
        return Grading(
            id=prompt.id,
            position=prompt.position,
            turn=len(said),
            category=prompt.category,
            question=before + asked[len(said) - 1],
            texts=dict(zip(names, texts, strict=True)) | references,
            answer=names[-1],
            status=last.status,
        )

    def cases(self, one: Grading) -> list[Case]:
        """Return the answer's one judgment."""
        plain, beside = (
            (self.first, self.first_with_reference) if one.turn == 1 else (self.second, self.second_with_reference)
        )
        shown = messages(self.system, beside if one.beside_reference else plain, one.texts)
        return [Case(id=one.id, position=one.position, question=one.question, answers=(one.text,), messages=shown)]

    def read_replies(self, one: Grading, asked: Sequence[Case], replies: Sequence[Reply]) -> Grading:
        """Return the answer with its grade."""
        (reply,) = replies
        return one.graded(reply)

    def lines(self, name: str, one: Grading) -> list[Mapping[str, Any]]:
        """Return the answer's line."""
        return [one.line]

    def figures(self, some: Sequence[Grading]) -> Metrics:
        """Return the figures of srecycle.judge.grades."""
        return figures(some)

    def heading(self, name: str) -> str:
        """Return what the metrics of all answers begin with."""
        return "overall"

    def title(self, name: str) -> str:
        """Return the benchmark's name: there is one set."""
        return "MT-Bench"

    def summary(self, found: Metrics) -> str:
        """Return the mean grade."""
        return f"{found['score']:.2f} overall"

    def metrics(
        self, judged: Mapping[str, Sequence[Grading]], again: Mapping[str, Sequence[Again[Grading]]]
    ) -> Metrics:
        """Return the figures of all answers, of their categories, and of each turn."""
        (every,) = judged.values()
        turns = {one.turn: [other for other in every if other.turn == one.turn] for one in every}
        found = super().metrics(judged, again)
        for turn, some in turns.items():
            found |= named(f"turn_{turn}", self.figures(some))
        return found


def _reference_answers(questions: Path, reference: Path) -> dict[str, tuple[str, ...]]:
    """Return the reference answers by the questions' content. Raises UserError where the file has another form."""
    known: dict[str, tuple[str, ...]] = {}
    for number, record in enumerate(records(reference, "reference_answers")):
        place = f"{reference}: record {number}"
        try:
            turns = record["choices"][0]["turns"]
            known[str(record[_ID])] = tuple(text_of(turn, "turns", place) for turn in turns)
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{place} is no reference answer: expected {_ID}, and choices with turns") from error
    # `category` is any column's value: here the questions' numbers.
    return {one.id: known[one.category] for one in read_prompts(questions, _ID) if one.category in known}
