"""Batched likelihoods of a causal language model.

In: sequences whose target stands at their end. Out: for each the mean negative log-likelihood of its target (nats per
token), in the order given. Equal sequences are computed once. Batches are formed from sequences of similar length under
a token budget, padded on the left, so that all targets end at the same place and the model's head runs on target
positions only. In fp32 a budget moves the last bits of a value (under 1e-6 relative); in bf16, whose rounding depends
on a batch's shape, it was seen to move losses by up to 3e-3.
"""

from collections.abc import Iterator, Sequence

import torch

from srecycle.student.encoding import Encoded
from srecycle.student.model import Loaded

_HEAD_POSITIONS = 1024
"""Log-softmax is taken over at most this many positions at a time: [positions, vocabulary] in fp32 is what grows."""


def mean_losses(loaded: Loaded, sequences: Sequence[Encoded], batch_tokens: int) -> list[float]:
    """Return L(target | context) for each sequence (nats per token); not finite where the model's output is not."""
    distinct = list(dict.fromkeys(sequences))
    losses: dict[Encoded, float] = {}
    for batch in batches(distinct, batch_tokens):
        losses.update(zip(batch, _batch_losses(loaded, batch), strict=True))
    return [losses[sequence] for sequence in sequences]


def batches(sequences: Sequence[Encoded], batch_tokens: int) -> Iterator[list[Encoded]]:
    """Split sequences, longest first, into batches of at most `batch_tokens` tokens, padding included."""
    batch: list[Encoded] = []
    for sequence in sorted(sequences, key=lambda one: (-len(one.ids), one.target_start, one.ids)):
        if batch and len(batch[0].ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


@torch.inference_mode()
def _batch_losses(loaded: Loaded, batch: Sequence[Encoded]) -> list[float]:
    width = max(len(sequence.ids) for sequence in batch)
    pad = loaded.tokenizer.pad_token_id or 0
    ids = torch.full((len(batch), width), pad, dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for line, sequence in enumerate(batch):
        ids[line, width - len(sequence.ids) :] = torch.tensor(sequence.ids)
        mask[line, width - len(sequence.ids) :] = 1
    targets = max(sequence.target_tokens for sequence in batch)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = loaded.model(
        input_ids=ids.to(loaded.device),
        attention_mask=mask.to(loaded.device),
        position_ids=positions.to(loaded.device),
        use_cache=False,
        logits_to_keep=targets + 1,
    ).logits[:, :-1]
    wanted = ids[:, width - targets :].to(loaded.device)
    chunks = zip(
        torch.split(logits.flatten(0, 1), _HEAD_POSITIONS), torch.split(wanted.flatten(), _HEAD_POSITIONS), strict=True
    )
    flat = [-torch.log_softmax(some.float(), dim=-1).gather(1, labels[:, None])[:, 0] for some, labels in chunks]
    losses = torch.cat(flat).view(len(batch), targets).double().cpu()
    return [float(losses[line, targets - sequence.target_tokens :].mean()) for line, sequence in enumerate(batch)]
