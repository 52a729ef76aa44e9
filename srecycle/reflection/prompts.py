"""The two requests that a teacher gets (the paper, section 3: reflect on the instruction, reflect on the response).

Pure: a pair goes in, chat messages come out. The wording lives in conf/reflection as data. The requests' placeholders
are `{instruction}`, `{response}`, `{input_block}`, `{history_block}`, `{instruction_criteria}` and
`{response_criteria}`; the blocks (with `{input}` and `{history}`) are left out where the pair has none. The whole
wording is identity; `scope` is not, since it shapes the plan and not a request.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from srecycle.config import Component, component, runtime
from srecycle.placeholders import fill, showing
from srecycle.rows import Phase, Turn

Messages = list[dict[str, str]]
Request = Annotated[str, showing("instruction", "response")]
"""A wording that shows the pair; one without its placeholders would be paid for in vain."""


@component
class Reflection(Component):
    """How reflection is asked for.

    `scope` is `all` (the response is reflected on for the original and for the new instruction; selection is then free
    of teacher calls) or `chosen` (the paper's order: only for the pair that the student chose).
    """

    system: str
    instruction_request: Request
    response_request: Request
    input_block: str
    history_block: str
    instruction_criteria: tuple[str, ...]
    response_criteria: tuple[str, ...]
    scope: Literal["all", "chosen"] = runtime("all")

    def messages(
        self, phase: Phase, *, instruction: str, input: str, response: str, history: Sequence[Turn] = ()
    ) -> Messages:
        """Return the chat messages that ask for a reflection on this pair."""
        template = self.instruction_request if phase == "instruction" else self.response_request
        conversation = "\n".join(f"{turn.role}: {turn.content}" for turn in history)
        values = {
            "instruction": instruction,
            "response": response,
            "input_block": fill(self.input_block, {"input": input}) if input else "",
            "history_block": fill(self.history_block, {"history": conversation}) if history else "",
            "instruction_criteria": ", ".join(self.instruction_criteria),
            "response_criteria": ", ".join(self.response_criteria),
        }
        return [{"role": "system", "content": self.system}, {"role": "user", "content": fill(template, values)}]
