"""Batched generation that batches don't change: a local teacher's replies, a student's answers.

In: prompts as token ids, each with a seed of its own. Out: one text each, with how it ended and its length. A token is
drawn from a stream of random numbers that belongs to its prompt alone, so neither batches, order nor resuming decide
what is written. What is left is rounding: a batch's shape moves logits by their last bits, which matters only where a
draw falls on the border between two tokens. In float32 that was not seen once in 11,000 tokens; in bfloat16 it changes
most texts, and a budget of one token (each prompt by itself) is what keeps them.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from srecycle.student.model import Loaded


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt as the model sees it. `key` names and seeds it; `room` is how many tokens may follow."""

    key: str
    ids: tuple[int, ...]
    room: int


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What followed a prompt. `finish_reason` is "stop", or "length" where its room was used up."""

    text: str
    finish_reason: str
    output_tokens: int


class Generator:
    """Generates on one loaded model, whose own sampling defaults (top_k, penalties) it switches off.

    A text ends at one of the model's end-of-sequence tokens or of `ends` (ids), before the first of the texts in
    `stops`, or when its room is used up. Temperature 0 takes the likeliest token.
    """

    def __init__(
        self,
        loaded: "Loaded",
        *,
        temperature: float,
        top_p: float | None = None,
        stops: Sequence[str] = (),
        ends: Sequence[int] = (),
    ) -> None:
        """Say how texts are drawn, and where they end."""
        from transformers import GenerationConfig

        own = _ends(loaded)
        self._loaded, self._temperature, self._top_p, self._stops = loaded, temperature, top_p, tuple(stops)
        self._ends = list(dict.fromkeys([*own, *ends]))
        loaded.model.generation_config = GenerationConfig(eos_token_id=self._ends or None, do_sample=False)

    def generate(self, batch: Sequence[Prompt]) -> list[Generated]:
        """Generate after each prompt of a batch, all of the same room; where memory lacks, its halves."""
        import torch

        loaded = self._loaded
        width = max(len(prompt.ids) for prompt in batch)
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for line, prompt in enumerate(batch):
            ids[line, width - len(prompt.ids) :] = torch.tensor(prompt.ids)
            mask[line, width - len(prompt.ids) :] = 1
        stopper = Stopper(loaded.tokenizer, self._stops, width, len(batch))
        seeds = [prompt.key for prompt in batch]
        sampler = Sampler(seeds, self._temperature, self._top_p) if self._temperature else None
        try:
            output = loaded.model.generate(
                input_ids=ids.to(loaded.device),
                attention_mask=mask.to(loaded.device),
                max_new_tokens=batch[0].room,
                pad_token_id=(self._ends or [0])[0],
                logits_processor=[sampler] if sampler else [],
                stopping_criteria=[stopper] if self._stops else [],
            )
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            half = len(batch) // 2
            return [*self.generate(batch[:half]), *self.generate(batch[half:])]
        lines = zip(output[:, width:].cpu().tolist(), stopper.lengths, strict=True)
        return [self._read(line[:length], length is not None) for line, length in lines]

    def _read(self, generated: Sequence[int], stopped: bool) -> Generated:
        ends = set(self._ends)
        length = next((place for place, token in enumerate(generated) if token in ends), len(generated))
        text = self._loaded.tokenizer.decode(
            generated[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Generated(
            text=text[: min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=None)],
            finish_reason="stop" if stopped or length < len(generated) else "length",
            output_tokens=length,
        )


class Sampler:
    """Draws each line's next token from that line's own stream, and leaves generation no other choice.

    Follows transformers' interface of logits processors: a batch's ids so far, and its next tokens' logits.
    """

    def __init__(self, seeds: Sequence[str], temperature: float, top_p: float | None) -> None:
        """Start one stream a line of the batch."""
        self._streams = [random.Random(seed) for seed in seeds]
        self._temperature, self._top_p = temperature, top_p

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Return logits that allow the drawn tokens only: where the cumulated probability first passes a draw."""
        import torch

        probabilities = torch.softmax(scores.double() / self._temperature, dim=-1)
        if self._top_p is not None:
            probabilities = _nucleus(probabilities, self._top_p)
        mass = probabilities.cumsum(dim=-1)
        draws = torch.tensor([[stream.random()] for stream in self._streams], dtype=mass.dtype, device=mass.device)
        tokens = torch.searchsorted(mass, draws * mass[:, -1:], right=True).clamp(max=mass.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)


class Stopper:
    """Ends a line whose text holds one to stop at, and says after how many tokens it did.

    Follows transformers' interface of stopping criteria, whose own one can't read every tokenizer's vocabulary.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str], width: int, lines: int) -> None:
        """Look for `stops` from the token `width` on, where what is generated begins."""
        self._tokenizer, self._stops, self._width = tokenizer, stops, width
        self._tail = 2 * max((len(stop.encode()) for stop in stops), default=0)
        self.lengths: list[int | None] = [None] * lines

    def __call__(self, input_ids: "torch.Tensor", scores: Any, **_: Any) -> "torch.Tensor":
        """Return which lines are over."""
        import torch

        written = input_ids.shape[1] - self._width
        ends = input_ids[:, max(self._width, input_ids.shape[1] - self._tail) :].tolist()
        texts = self._tokenizer.batch_decode(ends, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for line, text in enumerate(texts):
            if self.lengths[line] is None and any(stop in text for stop in self._stops):
                self.lengths[line] = written
        return torch.tensor([length is not None for length in self.lengths], device=input_ids.device)


def batches(prompts: Sequence[Prompt], batch_tokens: int) -> Iterator[list[Prompt]]:
    """Split prompts, longest first, into batches under the budget (tokens at a batch's end, padding included).

    All prompts of a batch have the same room.
    """
    batch: list[Prompt] = []
    for prompt in sorted(prompts, key=lambda one: (-len(one.ids), one.room, one.key)):
        full = batch and (len(batch[0].ids) + batch[0].room) * (len(batch) + 1) > batch_tokens
        if batch and (full or prompt.room != batch[0].room):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _nucleus(probabilities: "torch.Tensor", top_p: float) -> "torch.Tensor":
    """Keep the likeliest tokens that together reach `top_p`, the one that reaches it included."""
    ordered, places = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return probabilities.masked_fill((before >= top_p).scatter(1, places, before >= top_p), 0.0)


def _ends(loaded: "Loaded") -> list[int]:
    """Return the ids that end a text: the model's own, and its tokenizer's."""
    configured = loaded.model.generation_config.eos_token_id
    own = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(int(end) for end in (*own, loaded.tokenizer.eos_token_id) if end is not None))
