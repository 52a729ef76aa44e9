"""The tokenizer's own chat template, run by transformers in its sandbox.

Exactness is verified, not assumed: for every conversation the rendering that asks for an answer must be the beginning
of the rendering with an answer, and what lies between that beginning and the answer, and after the answer, must be the
same for all. So `BOS + prompt + completion + end` is the rendering of the whole conversation, letter by letter. A
template that lacks this (one that drops or opens a thinking block only when it generates, say) is refused, and so is a
row that it won't write (a system turn where it has none, roles that don't alternate).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from srecycle.config import component
from srecycle.errors import UserError
from srecycle.rows import Turn
from srecycle.student.template import Template, UnrenderableError, Wording, require_plain_prefix

_QUESTION, _ANSWER = "Hello", "Certainly"
"""The exchange that a template is tried on: ordinary words, which no template has a reason to rewrite."""

_OTHERWISE = "choose another format, template=chatml for example"

Message = dict[str, str]


@component
class ChatTemplate(Template):
    """The chat template that comes with the student's tokenizer.

    `variables` are handed to it (`enable_thinking: false`, `date_string: 26 Jul 2024`). An input follows its
    instruction in the same message, after `input_separator`. Identity: these fields; the tokenizer's template itself is
    in the student's identity, by its folder's content or its hub commit. Nothing is loaded, and no template run, before
    `bound`.
    """

    input_separator: str = "\n\n"
    variables: dict[str, bool | int | float | str] = field(default_factory=dict)

    def bound(self, tokenizer: Any) -> Wording:
        """Try the tokenizer's template on one exchange, and return its wording.

        Raises UserError where there is no template, or none whose prompts are the beginning of its conversations.
        """
        if not tokenizer.chat_template:
            raise UserError(
                "template=chat, but the student's tokenizer has no chat template: "
                f"{_OTHERWISE}, or save one with the tokenizer (chat_template.jinja)"
            )
        renderer = _Renderer(tokenizer=tokenizer, variables=self.variables)
        messages = [*_system(self.system), _message("user", _QUESTION)]
        try:
            opening, whole = renderer.opening(messages), renderer.whole(messages, _ANSWER)
        except UnrenderableError as error:
            hint = "template.system=null" if self.system is not None and "ystem" in str(error) else _OTHERWISE
            raise UserError(f"template=chat: {error}; {hint}") from error
        head, found, end = whole[len(opening) :].partition(_ANSWER)
        if not whole.startswith(opening):
            raise UserError(
                "template=chat: the tokenizer's chat template begins an answer in another way when it asks for one "
                f"(...{opening[-30:]!r}) than when it is given one: {_OTHERWISE}"
            )
        if not found:
            raise UserError(f"template=chat: the tokenizer's chat template rewrites {_ANSWER!r}: {_OTHERWISE}")
        text = opening.rstrip(" ")
        gap = opening[len(text) :]
        require_plain_prefix(gap + head, tokenizer)
        return _Chat(template=self, renderer=renderer, tried=text, gap=gap, head=gap + head, end=end)


@dataclass(frozen=True, kw_only=True)
class _Renderer:
    """One tokenizer's chat template with its variables. BOS is left out: a sequence gets it as its anchor."""

    tokenizer: Any
    variables: Mapping[str, Any]

    def opening(self, messages: Sequence[Message]) -> str:
        """Render a conversation that asks for an answer."""
        return self._render(messages, add_generation_prompt=True)

    def whole(self, messages: Sequence[Message], answer: str) -> str:
        """Render a conversation with its answer."""
        return self._render([*messages, _message("assistant", answer)], add_generation_prompt=False)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **{"strftime_now": "", **self.variables},  # no clock: a prompt must be the same on another day
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            if "not callable" in reason and "strftime_now" in str(self.tokenizer.get_chat_template()):
                raise UserError(
                    "template=chat: the tokenizer's chat template writes today's date; fix it, for example with "
                    "'+template.variables.date_string=26 Jul 2024'"
                ) from error
            raise UnrenderableError(f"the tokenizer's chat template refuses this conversation: {reason}") from error
        return str(text).removeprefix(self.tokenizer.bos_token or "")


@dataclass(frozen=True, kw_only=True)
class _Chat:
    """The wording of a chat template.

    `head` and `end` stand around every answer; `gap` is the part of `head` that openings end in (spaces). An answer is
    rendered after one exchange, whose prompt is `tried`, since it is the same target after any context; that the
    template writes the same around an answer after each context is verified with each prompt.
    """

    template: ChatTemplate
    renderer: _Renderer
    tried: str
    gap: str
    head: str
    end: str

    def prompt(self, instruction: str, input: str = "", history: Sequence[Turn] = ()) -> str:
        messages = [_message(turn.role, turn.content) for turn in history]
        if not messages or messages[0]["role"] != "system":
            messages = [*_system(self.template.system), *messages]
        messages.append(_message("user", self.whole_instruction(instruction, input)))
        opening = self.renderer.opening(messages)
        text = opening.removesuffix(self.gap)
        if self.renderer.whole(messages, _ANSWER) != text + self.head + _ANSWER + self.end:
            raise UnrenderableError("the tokenizer's chat template writes this conversation's answer in another way")
        return text

    def completion(self, response: str) -> str:
        messages = [*_system(self.template.system), _message("user", _QUESTION)]
        whole = self.renderer.whole(messages, response)
        written = whole[len(self.tried) : len(whole) - len(self.end)]
        exact = whole == self.tried + written + self.end and written.startswith(self.gap)
        if not exact or _letters(response) not in _letters(written):
            raise UnrenderableError("the tokenizer's chat template doesn't write this response as it is")
        return written

    def whole_instruction(self, instruction: str, input: str) -> str:
        return self.template.whole_instruction(instruction, input)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _system(content: str | None) -> list[Message]:
    return [] if content is None else [_message("system", content)]


def _letters(text: str) -> str:
    """A text without its white space, which templates may trim."""
    return "".join(text.split())
