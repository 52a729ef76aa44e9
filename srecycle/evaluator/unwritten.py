"""Answers that are not generated yet, for a quote: each of a usual length, and like no other."""

from collections.abc import Sequence
from typing import Final

from srecycle.evaluator.answers import Answer
from srecycle.evaluator.prompts import Prompt
from srecycle.reflection.quote import PRIOR
from srecycle.rows import OK

_LENGTH: Final = round(PRIOR.output_tokens_per_reply * PRIOR.characters_per_input_token)
"""How long (characters) an answer is taken to be."""


def unwritten(prompts: Sequence[Prompt]) -> list[Answer]:
    """Return a stand-in for each turn of each prompt, in order."""
    return [
        Answer(
            id=prompt.id,
            position=prompt.position,
            turn=turn,
            instruction=instruction,
            input="" if turn else prompt.input,
            text=f"{prompt.id} {turn}".ljust(_LENGTH, "?"),
            status=OK,
            finish_reason="",
            input_tokens=0,
            output_tokens=0,
        )
        for prompt in prompts
        for turn, instruction in enumerate(prompt.turns)
    ]
