"""Sets of prompts, by path: what students are asked in an evaluation, and answers that somebody else gave to them.

A set is a JSON, JSON Lines or parquet file; what a record asks is found by its columns:

| column                                           | as in                                                      |
|--------------------------------------------------|------------------------------------------------------------|
| `instruction`, with `input` where there is one   | Alpaca's format, AlpacaEval's 805                          |
| `instruction` and `instances`, each an `input`   | the Self-Instruct test set (a prompt an instance)          |
| `Instruction`, `prompt`, `text`, `question`      | the WizardLM, Koala and Vicuna test sets                   |
| `conversations` (a text, or texts: the first)    | the LIMA test set                                          |
| `turns` (texts, asked one after the other)       | MT-bench                                                   |

Answers are records of the same columns, with the answer in `output`, `answer` or `response` (AlpacaEval's
model_outputs, for one). Prompts are found again by their content, not by their place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from srecycle.config import InputPath
from srecycle.data.files import columns_of, records, text, text_of
from srecycle.errors import UserError
from srecycle.rows import Turn, content_id, numbered

PromptSets = Annotated[dict[Annotated[str, Field(pattern=r"^[\w.-]+$")], InputPath], Field(min_length=1)]
"""Files of prompts, by the name that their figures get."""

_ASKED = ("instruction", "Instruction", "prompt", "text", "question")
_ANSWERED = ("output", "answer", "response")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One thing to ask: `turns` are the user's messages, of which the second is asked after the first is answered.

    `input` belongs to the first turn, `history` stands before it. `category` is the record's value of a column that the
    user names, or "". `id` is a hash of the content; exact duplicates have a running number.
    """

    id: str
    position: int
    turns: tuple[str, ...]
    input: str = ""
    history: tuple[Turn, ...] = ()
    category: str = ""

    @property
    def question(self) -> str:
        """The first turn as a judge is shown it: what was said before, the instruction, its input."""
        before = "".join(f"{turn.role}: {turn.content}\n\n" for turn in self.history)
        return before + (f"{self.turns[0]}\n\n{self.input}" if self.input else self.turns[0])


def read_prompts(path: Path, category: str | None = None) -> list[Prompt]:
    """Return a file's prompts in order; `category` names the column of their categories.

    Raises UserError where the file can't be read, holds nothing, a record asks nothing, or no record has the category.
    """
    found = [
        prompt
        for number, record in enumerate(records(path, "prompts"))
        for prompt in _asked(record, f"{path}: record {number}", category)
    ]
    if not found:
        raise UserError(f"{path} holds no prompts")
    if category is not None and not any(prompt.category for prompt in found):
        raise UserError(f"{path} has no column {category!r} (category): name one of its columns, or null")
    ids = numbered(map(_content, found))
    return [replace(prompt, id=one, position=place) for place, (one, prompt) in enumerate(zip(ids, found, strict=True))]


def read_answers(path: Path, setting: str | None = None) -> dict[str, str]:
    """Return a file's answers by the ids of their prompts; `setting` named the file.

    Raises UserError where a record has no answer.
    """
    prompts, answers = list[Prompt](), list[str]()
    for number, record in enumerate(records(path, setting)):
        place = f"{path}: record {number}"
        column = next((name for name in _ANSWERED if name in record), None)
        if column is None:
            raise UserError(f"{place} has no answer ({', '.join(_ANSWERED)}); it has {columns_of(record)}")
        asked = list(_asked(record, place, None))
        if len(asked) != 1:
            raise UserError(f"{place} asks {len(asked)} things, but answers one")
        prompts += asked
        answers.append(text(record, column, place))
    return dict(zip(numbered(map(_content, prompts)), answers, strict=True))


def _content(prompt: Prompt) -> str:
    return content_id("\n\n".join(prompt.turns), prompt.input, "", prompt.history)


def _asked(record: Mapping[str, Any], place: str, category: str | None) -> Iterator[Prompt]:
    named = _category(record.get(category), category, place) if category is not None else ""
    history = _history(record.get("history") or (), place)
    for turns, given in _texts(record, place):
        if not turns[0].strip():
            raise UserError(f"{place} asks nothing: its text is empty")
        yield Prompt(id="", position=0, turns=turns, input=given, history=history, category=named)


def _category(value: Any, column: str, place: str) -> str:
    """Return the one value of a column, "" where it is null."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else str(value)
    return text_of(value, column, place)


def _texts(record: Mapping[str, Any], place: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield turns and input of what a record asks."""
    several = "turns" if "turns" in record else "conversations"
    if several in record:
        value = record[several]
        turns = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
        if not turns or not all(isinstance(turn, str) for turn in turns):
            raise UserError(f"{place}: {several!r} should be a text or a list of texts")
        kept = turns if several == "turns" else turns[:1]
        yield tuple(text_of(turn, several, place) for turn in kept), ""
        return
    column = next((name for name in _ASKED if name in record), None)
    if column is None:
        known = ", ".join((*_ASKED, "turns", "conversations"))
        raise UserError(f"{place} has no column that asks something ({known}); it has {columns_of(record)}")
    asked = text(dict(record), column, place)
    if "instances" not in record:
        yield (asked,), text(dict(record), "input", place, default="")
        return
    instances = record["instances"]
    if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
        raise UserError(f"{place}: 'instances' should be a list of objects with an 'input'")
    for one in instances:
        yield (asked,), text(one, "input", place, default="")


def _history(turns: Any, place: str) -> tuple[Turn, ...]:
    try:
        return tuple(
            Turn(role=text_of(turn["role"], "role", place), content=text_of(turn["content"], "content", place))
            for turn in turns
        )
    except (TypeError, KeyError) as error:
        raise UserError(f"{place}: 'history' should be a list of messages with role and content") from error
