"""Token likelihoods of a causal language model, batched.

In: sequences whose target stands at their end. Out, for each in the order given: the negative log-likelihood (nats) of
every target token, or None where the device's memory doesn't hold even that sequence alone. What makes it fast, none of
which is allowed to change a value by more than rounding:

- equal sequences are computed once;
- a prompt prefix that many sequences share (a template's preamble) is computed once, and its keys and values serve all
  of them; sequences of equal context (two responses to one prompt) share one line of a batch as branches of one stem;
- lines of similar length form a batch under a token budget, padded on the right;
- the head runs on target positions only, and log-softmax on a few of them at a time.

In fp32 all this moves a value by less than 1e-6 relative. In bf16, whose rounding depends on a batch's shape, losses
were seen to move by up to 3e-3.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.student.encoding import Encoded
from srecycle.student.model import Loaded
from srecycle.student.network import Floats, Network
from srecycle.student.sharing import Line, lines_of

_CPU_BUDGET, _GPU_BUDGET, _LEAST_BUDGET = 2048, 16384, 512
"""Larger batches no longer gain anything: on a CPU they leave its cache."""

_PADDING = 0.05
"""The share of a batch that may be padding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenLosses:
    """One sequence's target tokens: `losses` in nats, [target tokens]; `ranks` (1: the likeliest) where asked for."""

    losses: npt.NDArray[np.float32]
    ranks: npt.NDArray[np.float32] | None = None

    @property
    def mean(self) -> float:
        """L(target | context): nats per token. NaN where there is no token."""
        return float(self.losses.astype(np.float64).mean()) if len(self.losses) else float("nan")


class Inference:
    """Computes token losses on one loaded model. `batch_tokens` is lowered when the device runs out of memory.

    `share` lets prefixes and contexts be shared; where the model can't take that (found out by trying), they are not.
    Counted: `read_tokens` (of all sequences asked for), `computed_tokens` (fed to the model, without padding), `splits`
    (of batches that memory didn't hold). Once `stopped`, by any thread, it ends after the batch that it is at.
    """

    def __init__(self, loaded: Loaded, batch_tokens: int, *, share: bool = True, compiled: bool = False) -> None:
        """Try the model's abilities on a few tokens; loads nothing."""
        self._network = Network(loaded, compiled=compiled)
        self._window = self._network.window if share and self._network.shares else 0
        self.loaded = loaded
        self.batch_tokens = batch_tokens
        self.read_tokens = self.computed_tokens = self.splits = 0
        self.stopped = False

    @property
    def shares(self) -> bool:
        """Whether prefixes and contexts are shared."""
        return self._window > 0

    def token_losses(self, sequences: Sequence[Encoded], ranked: Sequence[bool] = ()) -> list[TokenLosses | None]:
        """Return the target tokens' losses of each sequence, with ranks where `ranked` says so."""
        wanted = dict.fromkeys(sequences, False)
        for sequence, rank in zip(sequences, ranked or [False] * len(sequences), strict=True):
            wanted[sequence] |= rank
        found: dict[Encoded, TokenLosses | None] = {}
        for batch in batches(lines_of(list(wanted), self._window), lambda: self.batch_tokens, self._network.window):
            if self.stopped:
                raise UserError("scoring stopped with the run; the same command goes on where it stopped")
            self._compute(batch, wanted, found)
        self.read_tokens += sum(len(sequence.ids) for sequence in sequences)
        return [found[sequence] for sequence in sequences]

    def _compute(
        self, batch: Sequence[Line], wanted: dict[Encoded, bool], found: dict[Encoded, TokenLosses | None]
    ) -> None:
        """Compute a batch; where memory runs out, its halves, down to a single sequence, which then has no result."""
        computed = self._computed(batch, any(wanted[one] for line in batch for one in line.sequences))
        if computed is None:
            self._compute_apart(batch, wanted, found)
            return
        losses, ranks = computed
        self.computed_tokens += sum(len(line.ids) for line in batch)
        place = 0
        for line in batch:
            for sequence in line.sequences:
                span = slice(place, place := place + sequence.target_tokens)
                chosen = ranks[span] if ranks is not None and wanted[sequence] else None
                found[sequence] = TokenLosses(losses=losses[span], ranks=chosen)

    def _computed(self, batch: Sequence[Line], ranked: bool) -> tuple[Floats, Floats | None] | None:
        """Return a batch's losses and ranks, or None where memory ran out."""
        try:
            return self._network.losses(batch, ranked)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # Only here, where the error is gone: it held the frames that it came through, and they what was in memory.
        self._network.free()
        return None

    def _compute_apart(
        self, batch: Sequence[Line], wanted: dict[Encoded, bool], found: dict[Encoded, TokenLosses | None]
    ) -> None:
        if len(batch) > 1:
            half = (len(batch) + 1) // 2
            self.splits += 1
            self.batch_tokens = min(self.batch_tokens, half * len(batch[0].ids))
            say(f"  out of memory: going on with batches of {self.batch_tokens} tokens")
            self._compute(batch[:half], wanted, found)
            self._compute(batch[half:], wanted, found)
        elif batch[0].shares:
            self.splits += 1
            for sequence in batch[0].sequences:
                self._compute(lines_of([sequence], 0), wanted, found)
        else:
            found[batch[0].sequences[0]] = None


def batches(lines: Sequence[Line], budget: Callable[[], int], window: int) -> Iterator[list[Line]]:
    """Split lines, as `lines_of` arranges them, into batches of one prefix and at most `budget()` tokens.

    The budget is asked for anew with each line, so that it can be lowered on the way. Padding is included, the prefix
    is not; where it would be much of a batch, a smaller one is made, but not below a quarter of the budget. A line that
    is longer than the budget is a batch of its own, and one that shares something never stands with
    one that doesn't: what the latter may see is the model's own affair. Nor does a line beyond the model's window stand
    with one within: a model may read its whole batch in another way then.
    """
    for _, alike in groupby(lines, key=lambda line: (line.shares, line.prefix, len(line.ids) > window)):
        batch: list[Line] = []
        held = 0
        for line in alike:
            padded = len(batch[0].ids) * (len(batch) + 1) if batch else 0
            wasted = padded - held - len(line.ids) > _PADDING * padded and padded > budget() / 4
            if batch and (padded > budget() or wasted):
                yield batch
                batch, held = [], 0
            batch.append(line)
            held += len(line.ids)
        yield batch


def found_budget(loaded: Loaded) -> int:
    """Return the token budget that suits a device: what keeps it busy, and what its free memory holds."""
    if loaded.device.type != "cuda":
        return _CPU_BUDGET
    config = loaded.model.config.get_text_config()
    width = 12 * config.hidden_size + 4 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    free, _ = torch.cuda.mem_get_info(loaded.device)
    held = free // 2 // (width * loaded.model.dtype.itemsize)
    return max(_LEAST_BUDGET, min(_GPU_BUDGET, int(held)))


def _out_of_memory(error: RuntimeError) -> bool:
    """Tell a lack of memory, which torch raises as a class of its own for GPUs only, from other errors."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
