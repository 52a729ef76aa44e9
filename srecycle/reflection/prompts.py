"""The requests that a teacher gets (the paper, section 3: reflect on the instruction, reflect on the response).

Pure: a pair goes in, chat messages come out. The wording lives in conf/reflection as data; any of it can be a file,
`file:PATH`, whose content then stands for it (in the identity too). The requests' placeholders are `{instruction}`,
`{response}`, `{input_block}`, `{history_block}`, `{context_block}`, `{score_block}`, `{instruction_criteria}` and
`{response_criteria}`; a block is left out where there is nothing to say in it. All of it is identity but `scope`, which
shapes the plan and not a request.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from srecycle.config import Component, component, runtime
from srecycle.placeholders import fill, showing
from srecycle.reflection.parsing import form, segment_texts
from srecycle.rows import PHASES, Phase, Turn
from srecycle.verifier import NoVerifier, Verifier

Messages = list[dict[str, str]]
Mendable = Literal["unparsed", "truncated", "empty", "empty_segment", "echoed", "refused"]

_FILE = "file:"
_LONGEST_REPEATED = 2000
"""A cut reply longer than this (characters) is shown to its teacher by its beginning only: it ran on."""


def _read(wording: str) -> str:
    if not wording.startswith(_FILE):
        return wording
    path = Path(wording.removeprefix(_FILE).strip()).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"the wording's file {path} can't be read ({reason})") from error


Wording = Annotated[str, AfterValidator(_read)]
"""A text, or `file:PATH` of one."""

Request = Annotated[Wording, showing("instruction", "response")]
"""A wording that shows the pair; one without its placeholders would be paid for in vain."""


@component
class Reflection(Component):
    """How reflection is asked for.

    `context` is what the teacher is shown besides the pair: nothing, the row's reference answer, or the verdict of
    `verifier`. `score_criteria` asks for a score from 1 to 10 for each criterion. After a reply that can't be used for
    a reason that `reask_requests` has words for, the teacher is asked again, at most `reasks` times.

    `scope` is `all` (the response is reflected on for the original and for the new instruction; selection is then free
    of teacher calls) or `chosen` (the paper's order: only for the pair that the student chose).
    """

    system: Wording
    instruction_request: Request
    response_request: Request
    input_block: Wording
    history_block: Wording
    reference_block: Wording = ""
    verdict_block: Wording = ""
    score_block: Wording = ""
    instruction_criteria: tuple[str, ...]
    response_criteria: tuple[str, ...]
    score_criteria: bool = False
    context: Literal["none", "reference", "verifier"] = "none"
    verifier: Verifier = NoVerifier()
    reasks: Annotated[int, Field(ge=0)] = 1
    reask_requests: dict[Mendable, Wording] = Field(default_factory=dict)
    scope: Literal["all", "chosen"] = runtime("all")

    def __post_init__(self) -> None:
        """Refuse settings whose words no request would show. Raises ValueError."""
        block = {"none": "", "reference": self.reference_block, "verifier": self.verdict_block}[self.context]
        shown = {"none": "", "reference": "{reference}", "verifier": "{verdict}"}[self.context]
        if self.context != "none":
            self._require("{context_block}", f"context={self.context}")
        if shown not in block:
            raise ValueError(f"context={self.context} needs {shown} in its block")
        if self.score_criteria:
            self._require("{score_block}", "score_criteria=true")
        if self.score_criteria and "{criteria}" not in self.score_block:
            raise ValueError("score_criteria=true needs {criteria} in score_block")
        if self.context == "verifier" and isinstance(self.verifier, NoVerifier):
            raise ValueError("context=verifier needs one: verifier@reflection.verifier=exact, for example")

    def _require(self, placeholder: str, setting: str) -> None:
        for phase in PHASES:
            if placeholder not in self._template(phase):
                raise ValueError(f"{setting} needs {placeholder} in {phase}_request")

    def resolved(self) -> Mapping[str, Any]:
        """A verifier that nobody asks is no part of the identity."""
        return {"verifier": self.verifier if self.context == "verifier" else None}

    def messages(
        self,
        phase: Phase,
        *,
        instruction: str,
        input: str,
        response: str,
        history: Sequence[Turn] = (),
        context: str = "",
    ) -> Messages:
        """Return the chat messages that ask for a reflection on this pair; `context` is what `known` told of it."""
        conversation = "\n".join(f"{turn.role}: {turn.content}" for turn in history)
        context_block = self.reference_block if self.context == "reference" else self.verdict_block
        listed = "\n".join(f"[Score] {name}: number" for name in self.scored(phase))
        values = {
            "instruction": instruction,
            "response": response,
            "input_block": fill(self.input_block, {"input": input}) if input else "",
            "history_block": fill(self.history_block, {"history": conversation}) if history else "",
            "context_block": fill(context_block, {"reference": context, "verdict": context}) if context else "",
            "score_block": fill(self.score_block, {"criteria": listed}) if listed else "",
            "instruction_criteria": ", ".join(self.instruction_criteria),
            "response_criteria": ", ".join(self.response_criteria),
        }
        content = fill(self._template(phase), values)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": content}]

    def again(self, phase: Phase, messages: Messages, reply: str, status: str) -> Messages | None:
        """Return the messages that ask once more after an unusable reply, or None where its status has no words.

        The conversation goes on with the reply and our words on what was missing. A reply that ran into its limit is
        repeated in part only. An empty one can't be shown: the words then follow the first request.
        """
        if not self.reasks or status not in self.reask_requests:
            return None
        words = fill(self.reask_requests[status], {"form": form(phase)})
        *before, last = messages
        if not reply.strip():
            return [*before, {**last, "content": f"{last['content']}\n{words}"}]
        if status == "truncated" and len(reply) > _LONGEST_REPEATED:
            reply = f"{reply[: _LONGEST_REPEATED // 2]} [...]"
        return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": words}]

    def known(self, *, instruction: str, input: str, response: str, reference: str) -> str:
        """Return what the teacher is to be shown of a pair besides it: "" where nothing is known."""
        if self.context == "verifier":
            verdict = self.verifier.verdict(
                instruction=instruction, input=input, response=response, reference=reference
            )
            return verdict.told
        return reference if self.context == "reference" else ""

    def scored(self, phase: Phase) -> tuple[str, ...]:
        """Return the criteria that are to be scored in this phase."""
        if not self.score_criteria:
            return ()
        asked = (*self.instruction_criteria, *self.response_criteria) if phase == "instruction" else ()
        return tuple(dict.fromkeys(asked or self.response_criteria))

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """The texts (casefolded) that stand for instruction and answer where the requests show their format."""
        texts = {text for phase in PHASES for text in segment_texts(phase, self._template(phase))}
        return frozenset(text.casefold() for text in texts if text)

    def _template(self, phase: Phase) -> str:
        return self.instruction_request if phase == "instruction" else self.response_request
