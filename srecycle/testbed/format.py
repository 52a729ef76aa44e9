"""The one prompt format of the micro-world, and the words of the reversed request.

Four forms of text give a student's likelihoods their meaning, and a model this small follows none of them unless it has
met them. So all four occur in pre-training, which is hereby disclosed:
1. the forward prompt filled with an instruction, followed by a reply (IFD's conditional part; what fine-tuning trains);
2. the forward prompt filled with the reversed request, followed by an instruction (r-IFD's conditional part);
3. a bare instruction after the beginning-of-sequence token; 4. a bare response after it (the direct parts).
What follows form 1 in pre-training is mostly no answer (see `curriculum`): the base knows the world, not the
assistant's part.
"""

from typing import Final

TEMPLATE_SYSTEM_FREE_PROMPT: Final = "question : {instruction} reply :"
"""The forward prompt. There is no system line, and no space before the reply: tokens are whole words."""

REVERSED_REQUEST: Final = "guess the question for this reply : {response}"
"""What stands in the place of the instruction when the student is asked to guess it from a response."""


def forward_prompt(instruction: str) -> str:
    """The prompt whose continuation is the response."""
    return TEMPLATE_SYSTEM_FREE_PROMPT.format(instruction=instruction)


def reversed_prompt(response: str) -> str:
    """The prompt whose continuation is the instruction: the forward prompt filled with the reversed request."""
    return forward_prompt(REVERSED_REQUEST.format(response=response))
