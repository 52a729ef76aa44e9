"""How a sample becomes text. Pure; the wording lives in conf/template as data, each with its source.

    prompt     = preamble + (user + response + turn_end)* + user
    completion = response_prefix + response

`user` has `{instruction}`, `user_with_input` also `{input}`. A prompt never ends in the space that separates it from
the completion: that space is the completion's `response_prefix`, so that joining token ids equals what is trained.
"""

from collections.abc import Sequence
from typing import Annotated

from srecycle.config import Component, component
from srecycle.placeholders import fill, showing
from srecycle.rows import Turn


@component
class PromptTemplate(Component):
    """A prompt format. All of it is identity."""

    user: Annotated[str, showing("instruction")]
    user_with_input: Annotated[str, showing("instruction", "input")]
    preamble: str = ""
    preamble_with_input: str = ""
    response_prefix: str = ""
    turn_end: str = ""
    input_separator: str = "\n"

    def prompt(self, instruction: str, input: str = "", history: Sequence[Turn] = ()) -> str:
        """Return the text before the response."""
        preamble = self.preamble_with_input if input and self.preamble_with_input else self.preamble
        text = preamble
        for turn in history:
            if turn.role == "assistant":
                text += self.completion(turn.content) + self.turn_end
            elif turn.role == "user":
                text += fill(self.user, {"instruction": turn.content})
            else:
                text += turn.content + self.turn_end
        user = self.user_with_input if input else self.user
        return text + fill(user, {"instruction": instruction, "input": input})

    def completion(self, response: str) -> str:
        """Return the text of the response as it follows a prompt."""
        return self.response_prefix + response

    def whole_instruction(self, instruction: str, input: str) -> str:
        """Return x, the target of r-IFD: the instruction and, where there is one, its input."""
        return f"{instruction}{self.input_separator}{input}" if input else instruction
