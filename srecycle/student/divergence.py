"""How far the predictions of two students stand apart, token by token, over the whole vocabulary.

In: sequences whose target stands at their end. Out, for every target token, the Kullback-Leibler divergences of the two
next-token distributions that it was predicted from, in both directions, and its loss under each; all in nats. Exact:
nothing is sampled, and no token left out. Logits exist for a few positions at a time only, their softmax in double
precision: the divergence of a student that hardly moved is a small difference of large terms.

"After" is the loaded model. "Before" is the same one with its adapter disabled, or a second one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from srecycle.errors import UserError
from srecycle.student.encoding import Encoded
from srecycle.student.inference import batches, found_budget
from srecycle.student.model import Loaded
from srecycle.student.network import Network
from srecycle.student.sharing import Line, lines_of

_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 24}
"""Probabilities that exist at one time in each of some double-precision tensors, [positions, vocabulary]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Divergence:
    """One sequence's target tokens, [target tokens] each, in nats."""

    kl_after_before: npt.NDArray[np.float64]
    kl_before_after: npt.NDArray[np.float64]
    loss_after: npt.NDArray[np.float64]
    loss_before: npt.NDArray[np.float64]


class Divergences:
    """Compares two students. Without `before`, it is `after` with its adapter disabled; with no adapter, `after`.

    Raises UserError where the two don't share their tokens.
    """

    def __init__(self, after: Loaded, before: Loaded | None, batch_tokens: int | None = None) -> None:
        """Try the models' abilities on a few tokens; loads nothing."""
        self._after = Network(after)
        self._before = self._after if before is None else Network(before)
        self._same = before is None and not hasattr(after.model, "disable_adapter")
        off: Callable[[], AbstractContextManager[None]] = nullcontext
        if before is None and not self._same:
            off = after.model.disable_adapter
        elif before is not None and before.tokenizer.get_vocab() != after.tokenizer.get_vocab():
            raise UserError(
                "the students before and after have other tokenizers, so their predictions can't be compared: "
                "give a student of the same model family"
            )
        self._off = off
        self._budget = batch_tokens or found_budget(after)
        self._kind = "cpu" if after.device.type == "cpu" else "cuda"

    def of(self, sequences: Sequence[Encoded]) -> list[Divergence]:
        """Return each sequence's divergences; equal sequences are computed once."""
        window = min(self._after.window, self._before.window)
        found: dict[Encoded, Divergence] = {}
        for batch in batches(lines_of(list(dict.fromkeys(sequences)), 0), lambda: self._budget, window):
            columns = np.concatenate([part.numpy() for part in self._computed(batch)], axis=1)
            place = 0
            for line in batch:
                (one,) = line.sequences
                part = columns[:, place : (place := place + one.target_tokens)]
                found[one] = Divergence(
                    kl_after_before=part[0], kl_before_after=part[1], loss_after=part[2], loss_before=part[3]
                )
        return [found[one] for one in sequences]

    def _computed(self, batch: Sequence[Line]) -> Iterator[torch.Tensor]:
        """Yield [4, some target tokens] of a batch, in order; the adapter is off only while "before" computes."""
        labels = torch.tensor([token for line in batch for one in line.sequences for token in one.target])
        after, before = self._after.logits(batch), self._before.logits(batch)
        place = 0
        while (moved := next(after, None)) is not None:
            if self._same:
                still: torch.Tensor | None = moved
            else:
                with self._off():
                    still = next(before, None)
            assert still is not None
            if still.shape != moved.shape:
                raise UserError(
                    f"the students before and after predict {still.shape[1]} and {moved.shape[1]} tokens, so their "
                    "predictions can't be compared: give a student of the same model family"
                )
            wanted = labels[place : (place := place + len(moved))].to(moved.device)
            size = max(_ELEMENTS[self._kind] // moved.shape[1], 1)
            columns = (moved, still.to(moved.device), wanted)
            for parts in zip(*(torch.split(column, size) for column in columns), strict=True):
                yield _compared(*parts).cpu()


@torch.inference_mode()
def _compared(after: torch.Tensor, before: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return KL(after || before), KL(before || after) and both losses of each position: [4, positions]."""
    log_after, log_before = (torch.log_softmax(logits.double(), dim=-1) for logits in (after, before))
    apart = log_after - log_before
    forward, backward = (log_after.exp() * apart).sum(-1), -(log_before.exp() * apart).sum(-1)
    losses = [-one.gather(1, labels[:, None])[:, 0] for one in (log_after, log_before)]
    # A divergence is never negative; the sum that it is may be, by its rounding.
    return torch.stack([forward.clamp(min=0), backward.clamp(min=0), *losses])
