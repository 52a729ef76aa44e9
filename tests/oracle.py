"""The naive way to score, as tests and benchmarks compare with: one sequence at a time, all logits, its own masks."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.no_grad()
def token_losses(model: Any, ids: Sequence[int], begin: int) -> list[float]:
    """Return -log p (nats) of the tokens from `begin` on; the first token of all has nothing before it, and none."""
    logits = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits[0]
    told = torch.log_softmax(logits.double(), dim=-1)
    return [-float(told[place - 1, ids[place]]) for place in range(max(begin, 1), len(ids))]


class Naive:
    """A model, asked one sequence at a time. `losses` are per token, in nats."""

    def __init__(
        self, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu", attention: str = "eager"
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
        self.model = self.model.to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def losses(self, ids: Sequence[int], begin: int) -> list[float]:
        """Return -log p of the tokens from `begin` on; the first token of all has nothing before it, and none."""
        return token_losses(self.model, ids, begin)

    @torch.no_grad()
    def loss(self, ids: Sequence[int], begin: int) -> float:
        """Return the mean of `losses`, as the model itself computes it from labels; NaN where there is none."""
        row = torch.tensor([list(ids)], device=self.model.device)
        labels = row.clone()
        labels[:, : max(begin, 1)] = -100
        return float(self.model(input_ids=row, labels=labels).loss)

    @torch.no_grad()
    def ranks(self, ids: Sequence[int], begin: int) -> list[tuple[int, int]]:
        """Return the rank of the tokens from `begin` on (1: the likeliest), least and greatest.

        The two differ where another token is as likely, but for rounding: which one is ahead then says nothing.
        """
        logits = self.model(input_ids=torch.tensor([list(ids)], device=self.model.device)).logits[0].double()
        ranks = []
        for place in range(max(begin, 1), len(ids)):
            ahead = logits[place - 1] - logits[place - 1, ids[place]]
            ranks.append((1 + int((ahead > 1e-4).sum()), int((ahead > -1e-4).sum())))
        return ranks


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known of one target: its losses, its tokens' ranks as `Naive.ranks` gives them, and what was cut."""

    losses: list[float]
    ranks: list[tuple[int, int]]
    ids: list[int]
    cut: bool
    context_cut: bool

    @property
    def mean(self) -> float:
        """Nats per token."""
        return sum(self.losses) / len(self.losses)


class ById:
    """This harness's own reading at its plainest: context and target tokenised apart, their ids joined.

    `first` is the text of the token that every sequence begins with. Without one the first target token has nothing
    before it when it stands alone, and counts in neither reading.
    """

    def __init__(self, naive: Naive, first: str | None, max_length: int = 256) -> None:
        self.naive, self.max_length = naive, max_length
        self.first = [] if first is None else [naive.tokenizer.get_vocab()[first]]
        bare = json.loads(naive.tokenizer.backend_tokenizer.to_str()) | {"added_tokens": [], "post_processor": None}
        self._text_only = Tokenizer.from_str(json.dumps(bare))

    def ids(self, text: str) -> list[int]:
        """Tokenise a prompt, in which special tokens are what they say."""
        return list(self.naive.tokenizer.encode(text, add_special_tokens=False))

    def text_ids(self, text: str) -> list[int]:
        """Tokenise a target, in which there is nothing but text."""
        return list(self._text_only.encode(text).ids)

    def pair(self, context: str, target: str, eos: bool = False) -> tuple[Told, Told] | str:
        """Return the target after its context and alone, or the reason why there are no such two."""
        before = self.ids(context)
        goal = self.text_ids(target) + ([self.naive.tokenizer.eos_token_id] if eos else [])
        room = self.max_length - len(self.first)
        cut = len(goal) > room
        if cut:
            goal = goal[: room - min(len(before), self.max_length // 4)]
        counted = len(goal) if self.first else len(goal) - 1
        if counted < 1:
            return "too_short"
        left = room - len(goal)
        if before and left == 0:
            return "too_long"
        kept = before[-left:] if len(before) > left else before
        return (
            self._told(self.first + kept + goal, counted, cut, kept != before),
            self._told(self.first + goal, counted, cut, False),
        )

    def four(
        self, forward: str, backward: str, response: str, instruction: str, eos: bool = False
    ) -> tuple[Told, Told, Told, Told] | str:
        """Return y after x, y alone, x after y' and x alone, or why they can't be told."""
        y, x = self.pair(forward, response, eos), self.pair(backward, instruction, eos)
        reasons = [one for one in (y, x) if isinstance(one, str)]
        if reasons:
            return "too_short" if "too_short" in reasons else reasons[0]
        return (*y, *x)  # type: ignore[return-value]

    def _told(self, ids: list[int], counted: int, cut: bool, context_cut: bool) -> Told:
        begin = len(ids) - counted
        return Told(
            losses=self.naive.losses(ids, begin),
            ranks=self.naive.ranks(ids, begin),
            ids=ids[begin:],
            cut=cut,
            context_cut=context_cut,
        )


class Released:
    """The authors' released computation: text-level joining, four full forward passes a row at batch 1."""

    def __init__(self, naive: Naive, max_length: int = 2048) -> None:
        self.naive, self.max_length = naive, max_length

    def ids(self, text: str) -> list[int]:
        return list(self.naive.tokenizer(text)["input_ids"])

    def four(self, forward: str, backward: str, x: str, input: str, y: str) -> list[float]:
        """Return [L(y|x), L(y), L(x|y'), L(x)] for the two prompts' texts; NaN where nothing is left to predict."""
        return [
            self._after(forward + y, y),
            self._alone(y, self.max_length - len(self.ids(forward)) + 1),
            self._after(backward + x + input, x),
            self._alone(x + input, self.max_length - len(self.ids(backward)) + 1),
        ]

    def _alone(self, text: str, limit: int) -> float:
        return self.naive.loss(self.ids(text)[:limit], 0) if limit > 0 else math.nan

    def _after(self, text: str, target: str) -> float:
        border = len(self.ids(text[: text.rfind(target)]))
        return self.naive.loss(self.ids(text)[: self.max_length], border)


def covering(tokenizer: Any, ids: Sequence[int], text: str, begin: int, end: int) -> list[int]:
    """Return the places of the tokens from the first to the last that holds a byte of text[begin:end].

    Byte by byte: a token of a byte-level vocabulary says which bytes it is, one of SentencePiece's is text or a byte.
    """
    letters = {letter: byte for byte, letter in _byte_letters().items()}
    spaced = any(token.startswith("<0x") for token in tokenizer.get_vocab())
    border = [len(text[:place].encode("utf-8", "surrogatepass")) for place in (begin, end)]
    found, passed = [], 0
    for place, token in enumerate(tokenizer.convert_ids_to_tokens(list(ids))):
        if spaced:
            size = 1 if token.startswith("<0x") else len(token.replace("\u2581", " ").encode())
        else:
            size = sum(letter in letters for letter in token)
        if passed < border[1] and passed + size > border[0]:
            found.append(place)
        passed += size
    return found


def _byte_letters() -> dict[int, str]:
    """Return the letter that a byte-level vocabulary writes for each byte (GPT-2's)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + number) for number, byte in enumerate(hidden)}
