"""A student of the micro-world as its teacher: it answers, and a script puts the questions.

So small a model can't follow a request to reflect. In the instruction phase the scripted teacher without a fault raises
the question, in both phases the model answers it, after the opening of a worked response ("we begin with 3 6 4 ."),
since a base mostly would not answer; and the script's reply gets that answer. In rounds of training the model is the
student that the last round made. Identity: the model by its content, `raises_level`, the temperature and the seed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, cast

from pydantic import Field

from srecycle.config import Component, component, runtime
from srecycle.teacher.base import Reply, Request, Teacher
from srecycle.teacher.generation import Generator, Prompt, batches
from srecycle.teacher.ledger import Ledger
from srecycle.teacher.scripted import Chance, ScriptedTeacher
from srecycle.testbed.format import forward_prompt
from srecycle.testbed.heldout import MAX_NEW_TOKENS as ROOM
from srecycle.testbed.manner import instruction_of, with_answer
from srecycle.testbed.wording import OPENINGS, mentioned_items

if TYPE_CHECKING:
    from srecycle.student.model import Loaded, Student


@component
class TestbedStudentTeacher(Teacher):
    """Answers with `model` at a temperature; 0 takes the likeliest token."""

    model: Component
    raises_level: Chance = 0.7
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    seed: int = 0
    batch_tokens: Annotated[int, Field(ge=1)] = runtime(16384)

    def __post_init__(self) -> None:
        """Refuse a model that is no student."""
        if not callable(getattr(self.model, "load", None)):
            raise ValueError(f"model should be a student, not {type(self.model).__name__}")

    @property
    def deterministic(self) -> bool:
        """Whether it takes the likeliest token."""
        return self.temperature == 0

    def close(self) -> None:
        """Let go of the model; the next request loads it again."""
        self.__dict__.pop("_loaded", None)

    def replies(self, requests: Sequence[Request], ledger: Ledger) -> list[Reply]:
        """Write one reply a request."""
        scripted = ScriptedTeacher(raises_level=self.raises_level, seed=self.seed).replies(requests, ledger)
        prompts = {self._key(one): self._prompt(one, plain) for one, plain in zip(requests, scripted, strict=True)}
        answers = self._answers({key: prompt.text for key, prompt in prompts.items()})
        return [
            replace(plain, text=with_answer(plain.text, f"{prompts[key].opening} {answers[key]}".strip()))
            for plain, key in zip(scripted, map(self._key, requests), strict=True)
        ]

    def _key(self, request: Request) -> str:
        return f"student|{self.seed}|{request.row_id}|{request.phase}|{request.base}|{request.sample}"

    def _prompt(self, request: Request, plain: Reply) -> "_Opened":
        question = instruction_of(plain.text) or request.instruction
        items = mentioned_items(question)
        opening = random.Random(self._key(request)).choice(OPENINGS).format(items=" ".join(items)) if items else ""
        return _Opened(text=f"{forward_prompt(question)} {opening}".strip(), opening=opening)

    def _answers(self, prompts: Mapping[str, str]) -> dict[str, str]:
        """Return what the model writes after each prompt, by the key that seeds it."""
        loaded = self._loaded
        generator = Generator(loaded, temperature=self.temperature)
        asked = [
            Prompt(key=key, ids=tuple(loaded.tokenizer(f"{loaded.tokenizer.bos_token} {text}")["input_ids"]), room=ROOM)
            for key, text in prompts.items()
        ]
        return {
            prompt.key: " ".join(one.text.split())
            for batch in batches(asked, self.batch_tokens)
            for prompt, one in zip(batch, generator.generate(batch), strict=True)
        }

    @cached_property
    def _loaded(self) -> "Loaded":
        return cast("Student", self.model).load()


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A prompt, and the opening of an answer that it ends in."""

    text: str
    opening: str
