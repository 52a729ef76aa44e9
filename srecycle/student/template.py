"""How a sample becomes text: the prompt, the response that follows it, and what ends it.

A `Template` is configuration. Bound to the student's tokenizer it gives a `Wording`: functions from texts to text.

    prompt     = (preamble or the conversation's system turn) + (user + response + turn_end)* + user
    completion = response_prefix + response
    a trained target = completion, then `end`, then the tokenizer's EOS, once

The wording of text templates lives in conf/template as data, each with its source. `user` has `{instruction}`,
`user_with_input` also `{input}`, `system_turn` `{system}`. A prompt never ends in the space that separates it from the
completion: that space is the completion's, so that joining token ids equals what a joint tokenisation gives.

Special tokens that a template writes (`<|im_start|>`, `</s>`) become their ids where the tokenizer has them, and are
spelled as text where it hasn't.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

from srecycle.config import Component, component
from srecycle.errors import UserError
from srecycle.placeholders import fill, showing
from srecycle.rows import Turn
from srecycle.student.encoding import token_ids

UNRENDERABLE = "unrenderable"
"""The reason of a row that the template can't write."""


class UnrenderableError(UserError):
    """This one conversation can't be written by the template; others can, so it is a row's reason, not a run's end."""


class Wording(Protocol):
    """A template bound to a tokenizer: from texts to text. Pure."""

    @property
    def end(self) -> str:
        """The text that follows a response, before the tokenizer's EOS."""

    def prompt(self, instruction: str, input: str = "", history: Sequence[Turn] = ()) -> str:
        """Return the text before the response, without BOS. Raises UnrenderableError."""

    def completion(self, response: str) -> str:
        """Return the text of the response as it follows a prompt, without its end. Raises UnrenderableError."""

    def whole_instruction(self, instruction: str, input: str) -> str:
        """Return x, the target of r-IFD: the instruction and, where there is one, its input."""


def end_ids(wording: Wording, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids after a trained response: those of its end, and EOS once, as the last one.

    Where the end holds EOS itself, what follows it (a line break, often) is never generated and left out.
    """
    (ids,) = token_ids(tokenizer, [wording.end], continuing=True)
    eos = tokenizer.eos_token_id
    if eos is None:
        return ids
    return (*(ids[: ids.index(eos)] if eos in ids else ids), int(eos))


def require_plain_prefix(prefix: str, tokenizer: Any) -> None:
    """Refuse special tokens at the beginning of every completion: a target is tokenised as text, and scored."""
    if special := [token for token in tokenizer.all_special_tokens if token in prefix]:
        raise UserError(
            f"the template opens each response with {prefix!r}, which holds the special token {special[0]}: "
            "it should stand at the end of the prompt"
        )


@component
class Template(Component, ABC):
    """A prompt format. All of it is identity.

    `system` is the system message of conversations that bring none; null leaves that to the format.
    `input_separator` stands between instruction and input in r-IFD's x.
    """

    system: str | None = None
    input_separator: str = "\n"

    @abstractmethod
    def bound(self, tokenizer: Any) -> Wording:
        """Return the wording for this tokenizer. Raises UserError where the two don't go together."""

    def whole_instruction(self, instruction: str, input: str) -> str:
        """Return x, the target of r-IFD: the instruction and, where there is one, its input."""
        return f"{instruction}{self.input_separator}{input}" if input else instruction


@component
class PromptTemplate(Template):
    """A format of plain text, the same for every tokenizer.

    A system message, be it a conversation's own or `system`, stands in place of the preamble, as `system_turn` says.
    """

    revision: ClassVar[int] = 2

    user: Annotated[str, showing("instruction")]
    user_with_input: Annotated[str, showing("instruction", "input")]
    preamble: str = ""
    preamble_with_input: str = ""
    system_turn: Annotated[str, showing("system")] = "{system}\n"
    response_prefix: str = ""
    turn_end: str = ""
    end: str = ""

    def bound(self, tokenizer: Any) -> Wording:
        """Return this template itself."""
        require_plain_prefix(self.response_prefix, tokenizer)
        return self

    def prompt(self, instruction: str, input: str = "", history: Sequence[Turn] = ()) -> str:
        """Return the text before the response."""
        text = "" if history and history[0].role == "system" else self._opening(input)
        for turn in history:
            if turn.role == "assistant":
                text += self.completion(turn.content) + self.turn_end
            elif turn.role == "user":
                text += fill(self.user, {"instruction": turn.content})
            else:
                text += fill(self.system_turn, {"system": turn.content})
        user = self.user_with_input if input else self.user
        return text + fill(user, {"instruction": instruction, "input": input})

    def completion(self, response: str) -> str:
        """Return the text of the response as it follows a prompt."""
        return self.response_prefix + response

    def _opening(self, input: str) -> str:
        if self.system is not None:
            return fill(self.system_turn, {"system": self.system})
        return self.preamble_with_input if input and self.preamble_with_input else self.preamble
