"""From texts to token ids: the one way in which scoring and training build a sequence.

    [anchor] + context ids + target ids (+ EOS)

Context and target are tokenised apart and joined as ids, so that a target has the same ids after any context and after
none. The anchor is the tokenizer's BOS, else its EOS; a tokenizer that has neither gives none, and then the first
target token is predicted from nothing and left out of every likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sequence. Positions `target_start` to the end are the target.

    `truncated` says that the target lost its end, `context_lost` how many tokens the context lost at its far side, and
    `context_gone` that none of it is left: what is predicted then is not the target after its context.
    """

    ids: tuple[int, ...]
    target_start: int
    truncated: bool = False
    context_lost: int = 0
    context_gone: bool = False

    @property
    def target_tokens(self) -> int:
        """How many target tokens have a likelihood."""
        return len(self.ids) - max(self.target_start, 1)


def anchor_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids that every sequence begins with: BOS, else EOS, else nothing."""
    for identifier in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if identifier is not None:
            return (int(identifier),)
    return ()


def anchor_name(tokenizer: Any) -> str:
    """Return which anchor is used: "bos", "eos" or "none" (the first target token is left out)."""
    if tokenizer.bos_token_id is not None:
        return "bos"
    return "eos" if tokenizer.eos_token_id is not None else "none"


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Tokenise texts with no special tokens added."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [tuple(ids) for ids in encoded]


def encode(anchor: tuple[int, ...], context: tuple[int, ...], target: tuple[int, ...], max_length: int) -> Encoded:
    """Join one sequence of at most `max_length` tokens.

    A context that doesn't fit loses its far side (its beginning). A target that doesn't fit beside the anchor alone
    loses its end, wherever it stands, and is flagged.
    """
    room = max_length - len(anchor)
    kept_target = target[:room]
    context_room = room - len(kept_target)
    kept_context = context[len(context) - context_room :] if len(context) > context_room else context
    ids = anchor + kept_context + kept_target
    return Encoded(
        ids=ids,
        target_start=len(ids) - len(kept_target),
        truncated=len(kept_target) < len(target),
        context_lost=len(context) - len(kept_context),
        context_gone=bool(context) and not kept_context,
    )
