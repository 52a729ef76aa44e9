"""Answers of a student to sets of prompts: generated once, whoever asks for them.

In: a subject and a set of prompts. Out: `answers.parquet`, a line for each turn of each prompt, with its text or the
reason why there is none, and how it ended ("length": its room was used up). A set's answers are an artifact of their
own, named by the student's, the adapter's and the prompts' content, the template and the sampling: every evaluator of
any run that asks the same student the same finds them. Prompts are never cut: one that leaves no room has the reason
"too_long". Finished shards survive a kill.

A prompt's random numbers are its own (srecycle.teacher.generation): neither batches nor order change what is said.
"""

from abc import ABC
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import Field

from srecycle.config import InputPath, component, runtime
from srecycle.digest import file_digest
from srecycle.engine.local import LocalEngine
from srecycle.evaluator.base import Evaluator, Subject
from srecycle.evaluator.prompts import Prompt, PromptSets, read_prompts
from srecycle.rows import OK, Turn
from srecycle.stage import Metrics, Stage, Work, materialize
from srecycle.store import Artifact, Store
from srecycle.student import Student, Template
from srecycle.student.adapter import pinned_adapter
from srecycle.student.encoding import anchor_ids, token_ids
from srecycle.student.model import Loaded
from srecycle.student.pinned import Pinned
from srecycle.student.template import UNRENDERABLE, UnrenderableError, Wording, end_ids
from srecycle.teacher import generation

SETTINGS: Final = ("max_new_tokens", "temperature", "top_p", "seed", "stop")
"""The fields that say how answers are generated."""

_SHARD = 64
_NO_EARLIER_ANSWER = "no_earlier_answer"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a student said to one turn (0-based) of a prompt. `text` is empty unless `status` is "ok"."""

    id: str
    position: int
    turn: int
    instruction: str
    input: str
    text: str
    status: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


_KINDS: Final = {str: pa.string(), int: pa.int64()}
ANSWER_SCHEMA = pa.schema([pa.field(name, _KINDS[kind], False) for name, kind in Answer.__annotations__.items()])


@component
class Answers(Stage):
    """Generates a student's answers to one file of prompts."""

    prompts: InputPath
    student: Student
    template: Template
    adapter: InputPath | None
    model: InputPath | None
    max_new_tokens: int
    temperature: float
    top_p: float | None
    seed: int
    stop: tuple[str, ...]
    batch_tokens: int = runtime()

    @property
    def name(self) -> str:
        """The stage's name."""
        return "answers"

    def resolved(self) -> Mapping[str, Any]:
        """Prompts, and the adapter or model that a training made, stand as their content."""
        adapter = pinned_adapter(str(self.adapter)).content if self.adapter else None
        whole = Pinned(field="model", path=str(self.model), revision="", config="config.json") if self.model else None
        return {"prompts": file_digest(self.prompts), "adapter": adapter, "model": whole and whole.content}

    def run(self, work: Work) -> Metrics:
        """Generate, prompts of like length together, and write the answers in the order of the prompts."""
        prompts = read_prompts(self.prompts)
        arranged = sorted(prompts, key=lambda one: (-len(one.question), one.position))

        def answer(shard: Sequence[Prompt]) -> pa.Table:
            return pa.Table.from_pylist([asdict(one) for one in self._speaker.answers(shard)], schema=ANSWER_SCHEMA)

        engine = LocalEngine(shard_rows=_SHARD, workers=1)
        given = engine.map_shards(f"answers to {self.prompts.name}", arranged, answer, work.scratch)
        self.__dict__.pop("_speaker", None)
        answers = given.sort_by([("position", "ascending"), ("turn", "ascending")]).combine_chunks()
        work.write("answers", answers)
        return described(read(answers))

    @cached_property
    def _speaker(self) -> "Speaker":
        """Loaded with the first shard that is to be made."""
        subject = Subject(
            student=self.student,
            template=self.template,
            adapter=self.adapter,
            model=self.model,
            training=pa.table({}),
        )
        return Speaker(subject.load(), self)


class Speaker:
    """A loaded student that answers prompts in its template, sampled as `settings` say."""

    def __init__(self, loaded: Loaded, settings: Answers) -> None:
        """Bind the template to the tokenizer. Raises UserError where the two don't go together."""
        self._loaded, self._settings = loaded, settings
        self._wording = settings.template.bound(loaded.tokenizer)
        self._before = _before(self._wording)
        end = end_ids(self._wording, loaded.tokenizer)
        special = end[:1] if end and end[0] in loaded.tokenizer.all_special_ids else ()
        written = (self._wording.end.strip(),) if self._wording.end.strip() and not special else ()
        self._generator = generation.Generator(
            loaded,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stops=(*settings.stop, *written),
            ends=special,
        )

    def answers(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return an answer for each turn, in order; a turn whose forerunner has none is not asked."""
        said: dict[str, list[Answer]] = {prompt.id: [] for prompt in prompts}
        for turn in range(max((len(prompt.turns) for prompt in prompts), default=0)):
            asked = [prompt for prompt in prompts if len(prompt.turns) > turn]
            for prompt, answer in zip(asked, self._turn(asked, turn, said), strict=True):
                said[prompt.id].append(answer)
        return [answer for prompt in prompts for answer in said[prompt.id]]

    def _turn(self, prompts: Sequence[Prompt], turn: int, said: Mapping[str, Sequence[Answer]]) -> list[Answer]:
        """Ask one turn of each prompt."""
        found = {prompt.id: self._read(prompt, turn, said[prompt.id]) for prompt in prompts}
        ready = [one for one in found.values() if isinstance(one, generation.Prompt)]
        texts: dict[str, generation.Generated] = {}
        for batch in generation.batches(ready, self._settings.batch_tokens):
            texts |= dict(zip((one.key for one in batch), self._generator.generate(batch), strict=True))
        return [self._answer(prompt, turn, found[prompt.id], texts) for prompt in prompts]

    def _read(self, prompt: Prompt, turn: int, said: Sequence[Answer]) -> generation.Prompt | str:
        """Return a turn's token ids, with its conversation before it; or the reason why it can't be asked."""
        if any(answer.status != OK for answer in said):
            return _NO_EARLIER_ANSWER
        history = [*prompt.history]
        for place, answer in enumerate(said):
            first = self._wording.whole_instruction(prompt.turns[0], prompt.input)
            history.append(Turn(role="user", content=prompt.turns[place] if place else first))
            history.append(Turn(role="assistant", content=answer.text))
        try:
            text = self._wording.prompt(prompt.turns[turn], "" if turn else prompt.input, history)
        except UnrenderableError:
            return UNRENDERABLE
        tokenizer = self._loaded.tokenizer
        (ids,) = token_ids(tokenizer, [text])
        (opening,) = token_ids(tokenizer, [self._before.rstrip()], continuing=True) if self._before.strip() else ((),)
        whole = (*anchor_ids(tokenizer), *ids, *opening)
        room = min(self._settings.max_new_tokens, self._loaded.max_length - len(whole))
        key = f"{self._settings.seed} {prompt.id} {turn}"
        return generation.Prompt(key=key, ids=whole, room=room) if room > 0 else "too_long"

    def _answer(
        self,
        prompt: Prompt,
        turn: int,
        asked: generation.Prompt | str,
        texts: Mapping[str, generation.Generated],
    ) -> Answer:
        one = texts[asked.key] if isinstance(asked, generation.Prompt) else None
        return Answer(
            id=prompt.id,
            position=prompt.position,
            turn=turn,
            instruction=prompt.turns[turn],
            input="" if turn else prompt.input,
            text=one.text.strip() if one else "",
            status=asked if isinstance(asked, str) else OK,
            finish_reason=one.finish_reason if one else "",
            input_tokens=len(asked.ids) if isinstance(asked, generation.Prompt) else 0,
            output_tokens=one.output_tokens if one else 0,
        )


def _before(wording: Wording) -> str:
    """Return what a response begins with in this template: more than spaces is put before it, not generated."""
    try:
        return wording.completion("")
    except UnrenderableError:
        return ""


def read(table: pa.Table) -> list[Answer]:
    """Return a table's lines as answers."""
    return [Answer(**line) for line in table.select(ANSWER_SCHEMA.names).to_pylist()]


def described(answers: Sequence[Answer]) -> Metrics:
    """Return what can be counted: answers, those cut by their room, reasons of missing ones, mean tokens."""
    given = [answer for answer in answers if answer.status == OK]
    missing = Counter(answer.status for answer in answers if answer.status != OK)
    metrics: Metrics = {"answers": len(given), "cut": sum(answer.finish_reason == "length" for answer in given)}
    metrics |= {f"unanswered/{reason}": count for reason, count in sorted(missing.items())}
    return metrics | ({"mean_tokens": sum(one.output_tokens for one in given) / len(given)} if given else {})


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
        return {"prompts": {name: file_digest(path) for name, path in self.prompts.items()}}

    def check(self) -> None:
        """Raise UserError where a set of prompts can't be read."""
        for path in self.prompts.values():
            read_prompts(path, self.category)

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


@component
class AnswersEvaluator(Answering):
    """Only generates: the answers that other runs are then compared with."""

    def evaluate(self, subject: Subject, work: Work) -> Metrics:
        """Return each set's counts, and those of its categories."""
        metrics: Metrics = {}
        for name, answers in self.answered(subject, work).items():
            metrics |= {f"{name}/{what}": value for what, value in described(answers).items()}
            groups: dict[str, list[Answer]] = {}
            named = {prompt.id: prompt.category for prompt in read_prompts(self.prompts[name], self.category)}
            for answer in answers:
                groups.setdefault(named[answer.id], []).append(answer)
            for category in sorted(groups.keys() - {""}):
                found = described(groups[category])
                metrics |= {f"{name}/{category}/{what}": value for what, value in found.items()}
        return metrics
