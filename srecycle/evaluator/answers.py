"""Answers of a student to sets of prompts: generated once, whoever asks for them.

In: a subject and a set of prompts. Out: `answers.parquet`, a line for each turn of each prompt, with its text or the
reason why there is none, and how it ended ("length": its room was used up). A set's answers are an artifact of their
own, named by the student's, the adapter's and the prompts' content, the template and the sampling: every evaluator of
any run that asks the same student the same finds them. Prompts are never cut: one that leaves no room has the reason
"too_long". Finished shards survive a kill.

A prompt's random numbers are its own (srecycle.teacher.generation): neither batches nor order change what is said.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import pyarrow as pa

from srecycle.config import InputPath, component, runtime
from srecycle.digest import file_digest
from srecycle.engine import Engine, Mapper
from srecycle.engine.local import HERE
from srecycle.evaluator.base import Subject
from srecycle.evaluator.prompts import Prompt, read_prompts
from srecycle.rows import OK, Turn
from srecycle.stage import Metrics, Stage, Work
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
    """Generates a student's answers to one file of prompts (None: to those that a worker is sent)."""

    prompts: InputPath | None
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
    engine: Engine = runtime(HERE)

    @property
    def name(self) -> str:
        """The stage's name."""
        return "answers"

    def resolved(self) -> Mapping[str, Any]:
        """Prompts, and the adapter or model that a training made, stand as their content."""
        adapter = pinned_adapter(str(self.adapter)).content if self.adapter else None
        whole = Pinned(field="model", path=str(self.model), revision="", config="config.json") if self.model else None
        prompts = file_digest(self.prompts) if self.prompts else None
        return {"prompts": prompts, "adapter": adapter, "model": whole and whole.content}

    def run(self, work: Work) -> Metrics:
        """Generate, prompts of like length together, and write the answers in the order of the prompts."""
        assert self.prompts is not None
        prompts = read_prompts(self.prompts)
        arranged = sorted(prompts, key=lambda one: (-len(one.question), one.position))
        engine = replace(self.engine, shard_rows=_SHARD)
        label = f"answers to {self.prompts.name}"
        given = engine.map_shards(label, arranged, Speaking(replace(self, prompts=None)), work.scratch)
        answers = given.table().sort_by([("position", "ascending"), ("turn", "ascending")]).combine_chunks()
        work.write("answers", answers)
        return described(read(answers))


class Speaking(Mapper[Answers, Prompt, pa.Table]):
    """What a worker does: it loads the student as it was trained, and has it answer prompts."""

    def load(self) -> Mapping[str, Any]:
        """Load the student. Raises UserError where it can't be loaded."""
        stage = self.settings
        subject = Subject(
            student=stage.student,
            template=stage.template,
            adapter=stage.adapter,
            model=stage.model,
            training=pa.table({}),
        )
        self._speaker, self._one = Speaker(subject.load(), stage), threading.Lock()
        return {}

    def __call__(self, items: Sequence[Prompt]) -> pa.Table:
        """Return the answers to prompts; threads take turns on the one model."""
        with self._one:
            return pa.Table.from_pylist([asdict(one) for one in self._speaker.answers(items)], schema=ANSWER_SCHEMA)

    def name(self, item: Prompt) -> str:
        """Return the prompt's id."""
        return item.id


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
