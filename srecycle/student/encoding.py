"""From texts to token ids: the one way in which scoring and training build a sequence.

    [anchor] + context ids + target ids (+ EOS)

Context and target are tokenised apart and joined as ids, so that a target has the same ids after any context and after
none. The anchor is the tokenizer's BOS, else its EOS; a tokenizer that has neither gives none, and then the first
target token is predicted from nothing and left out of every likelihood.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        return max(len(self.ids) - max(self.target_start, 1), 0)

    @property
    def target(self) -> tuple[int, ...]:
        """The target tokens that have a likelihood."""
        return self.ids[len(self.ids) - self.target_tokens :]


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


def token_ids(
    tokenizer: Any, texts: Sequence[str], *, continuing: bool = False, plain: bool = False
) -> list[tuple[int, ...]]:
    """Tokenise texts with no special tokens added.

    `continuing` texts follow another one: a tokenizer that puts a space before whatever it is given (SentencePiece, as
    of Llama 2 and Mistral) puts none there. In `plain` ones no special token is recognised: a response that says
    "</s>" has not ended.
    """
    if not texts:
        return []
    with _tokenizing:
        head = _head(tokenizer) if continuing else ""
        given = [head, *(head + text for text in texts)] if head else list(texts)
        encoded = tokenizer(given, add_special_tokens=False, split_special_tokens=plain, verbose=False)["input_ids"]
        if not head:
            return [tuple(ids) for ids in encoded]
        before, *whole = encoded
        # Where the head melts into what follows, the text is taken as it stands.
        alone = [text for text, ids in zip(texts, whole, strict=True) if ids[: len(before)] != before]
        rest = iter(
            tokenizer(alone, add_special_tokens=False, split_special_tokens=plain, verbose=False)["input_ids"]
            if alone
            else ()
        )
        return [tuple(ids[len(before) :] if ids[: len(before)] == before else next(rest)) for ids in whole]


def token_spans(
    tokenizer: Any, text: str, ids: Sequence[int], *, special: bool = False, plain: bool = False
) -> list[tuple[int, int]] | None:
    """Return which characters of a text each of its `ids` stands for, [begin, end).

    Of a character that is split over several tokens each has the whole. `special` says that the tokenizer added its
    special tokens, which stand for nothing. None where it can't tell, or would not give these ids.
    """
    if not tokenizer.is_fast:
        return None
    asked = {"add_special_tokens": special, "split_special_tokens": plain, "verbose": False}
    with _tokenizing:
        # A continuing text was tokenised behind a head, where the tokenizer needs one.
        for head in dict.fromkeys(("", _head(tokenizer))):
            found = tokenizer(head + text, return_offsets_mapping=True, **asked)
            before = len(found["input_ids"]) - len(ids)
            if before >= 0 and list(found["input_ids"][before:]) == list(ids):
                spans = found["offset_mapping"][before:]
                return [(max(begin - len(head), 0), max(end - len(head), 0)) for begin, end in spans]
    return None


_tokenizing = threading.Lock()
"""Whether special tokens are split is a state of the tokenizer, not of a call."""


def _head(tokenizer: Any) -> str:
    """Return a text to put first where the tokenizer begins every text with a space: a line break; else nothing."""
    line, one, both = tokenizer(["\n", "a", "\na"], add_special_tokens=False)["input_ids"]
    return "\n" if both[: len(line)] == line and both[len(line) :] != one else ""


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


def encode_both(
    anchor: tuple[int, ...], context: tuple[int, ...], target: tuple[int, ...], max_length: int
) -> tuple[Encoded, Encoded]:
    """Join a target with its context and with none: the target's ids are the same in both.

    A target that doesn't fit alone loses its end in both, so much of it that up to a quarter of `max_length` is left
    for its context: with no context at all, the two would be one.
    """
    unpredicted = 0 if anchor else 1  # without an anchor nothing says how likely the first token is, so none may count
    room = max_length - len(anchor)
    kept = target
    if len(target) > room:
        kept = target[: room - min(len(context), max_length // 4)]
    first, rest = kept[:unpredicted], kept[unpredicted:]
    conditional, direct = (encode(anchor, before + first, rest, max_length) for before in (context, ()))
    cut = len(kept) < len(target)
    gone = bool(context) and conditional.context_lost == len(context)  # without an anchor `first` is left of it
    return replace(conditional, truncated=cut, context_gone=gone), replace(direct, truncated=cut)
