"""Evaluators of a student's answers, and the one that only generates them.

In: a subject, and files of prompts by name. The answers are a stage of their own (srecycle.evaluator.answers), copied
to `answers.parquet` of the evaluation, where other runs find them. Out: figures by the sets' names, and by the values
of a column of the prompts, as `SET/COLUMN=VALUE/...`.
"""

from abc import ABC
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import pyarrow as pa
from pydantic import Field

from srecycle.config import component, runtime
from srecycle.data.files import digest_of
from srecycle.errors import UserError
from srecycle.evaluator.answers import SETTINGS, Answer, Answers, described, read
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.prompts import Prompt, PromptSets, read_prompts
from srecycle.stage import Metrics, Work, materialize
from srecycle.store import Artifact, Store

T = TypeVar("T")

_MOST_VALUES: Final = 500


@component
class Answering(Evaluator, ABC):
    """An evaluator of answers. `prompts` are files by name (srecycle.evaluator.prompts); figures are told by name.

    `category` names a column by which figures are told too. Answers have at most `max_new_tokens`; temperature 0 takes
    the likeliest token; they end at the model's and the template's ends, and before the first of the texts in `stop` (a
    base model, which was never taught to stop, wants one). `batch_tokens` is how many tokens a batch may hold at its
    end, prompts and answers, padding included.
    """

    prompts: PromptSets
    category: str | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] = 1024
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int = 0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    batch_tokens: Annotated[int, Field(ge=1)] = runtime(32768)

    def resolved(self) -> Mapping[str, Any]:
        """Prompts stand as their content."""
        return {"prompts": {name: digest_of(path, "prompts") for name, path in self.prompts.items()}}

    def check(self) -> None:
        """Raise UserError where a set of prompts can't be read."""
        self.questions()

    def questions(self) -> dict[str, list[Prompt]]:
        """Return the prompts by set. Raises UserError where one can't be read, or `category` tells nearly all apart."""
        found = {name: read_prompts(path, self.category) for name, path in self.prompts.items()}
        for name, some in found.items():
            if (count := len({one.category for one in some})) > _MOST_VALUES:
                raise UserError(
                    f"{self.prompts[name]}: the column {self.category} (category) has {count} values, too many to tell "
                    "apart: name a column of groups"
                )
        return found

    def asked(self, subject: Subject) -> dict[str, Answers]:
        """Return the stages that make the subject's answers, by the sets' names. Does no work."""
        settings: dict[str, Any] = {name: getattr(self, name) for name in (*SETTINGS, "batch_tokens")}
        return {
            name: Answers(
                prompts=path,
                student=subject.student,
                template=subject.template,
                adapter=subject.adapter,
                model=subject.model,
                engine=subject.engine,
                **settings,
            )
            for name, path in self.prompts.items()
        }

    def answered(self, subject: Subject, work: Work) -> dict[str, list[Answer]]:
        """Return the subject's answers by set, generating those that the store lacks.

        They are copied to `answers.parquet` of the evaluation (`set` names their set), where other runs find them.
        """
        made = {name: materialize(stage, work.store).artifact for name, stage in self.asked(subject).items()}
        tables = {name: artifact.table("answers") for name, artifact in made.items()}
        named = [
            table.add_column(0, "set", pa.array([name] * len(table), pa.string())) for name, table in tables.items()
        ]
        work.write("answers", pa.concat_tables(named).combine_chunks())
        return {name: read(table) for name, table in tables.items()}

    def known(self, subject: Subject | None, store: Store | None) -> dict[str, Artifact | None]:
        """Return which sets' answers the store has already: none of them where the subject is still to be trained."""
        if subject is None or store is None:
            return dict.fromkeys(self.prompts)
        return {name: store.find(stage.name, stage.key) for name, stage in self.asked(subject).items()}


def grouped(column: str | None, some: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """Return what has a value in a column, given as (value, item), by `COLUMN=VALUE` in order."""
    groups: dict[str, list[T]] = {}
    for value, one in some:
        if value:
            groups.setdefault(f"{column}={value}", []).append(one)
    return {name: groups[name] for name in sorted(groups)}


@component
class AnswersEvaluator(Answering):
    """Only generates: the answers that other runs are then compared with."""

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Return each set's counts, and those of its categories."""
        metrics, questions = Metrics(), self.questions()
        for name, answers in self.answered(subject, work).items():
            values = {prompt.id: prompt.category for prompt in questions[name]}
            groups = grouped(self.category, [(values[answer.id], answer) for answer in answers])
            for place, some in ((name, answers), *((f"{name}/{value}", some) for value, some in groups.items())):
                metrics |= {f"{place}/{what}": value for what, value in described(some).items()}
        return metrics
