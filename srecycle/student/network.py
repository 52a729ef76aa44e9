"""A loaded model as inference needs it: token losses of a batch of lines, with the head on target positions only.

Nothing here knows a family of models. The body (all but the head) is run by itself; the head is the model's own forward
with the body standing still, so that what a family does to its logits (scaling, soft caps) is done here too. Whether a
model can be taken apart so, and whether it takes shared prefixes and branches, is tried on a few tokens at the start;
a model that can't is run whole, or sharing nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from srecycle.student.encoding import Encoded
from srecycle.student.model import Loaded
from srecycle.student.sharing import Ids, Line

Floats = npt.NDArray[np.float32]

_HEAD_ELEMENTS: Final = {"cpu": 1 << 23, "cuda": 1 << 26}
"""Logits that exist at one time, [positions, vocabulary]: a quarter of a gigabyte in fp32 on a GPU."""

_SOFTMAX_ELEMENTS: Final = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Log-softmax on a CPU is several times faster on what stays in its cache."""

_KEPT_PREFIXES = 8

_CANNOT: Final = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What models raise that are run in a way that they don't know."""


class Network:
    """Runs lines through a model. `shares` tells whether it can take prefixes and branches, up to `window` tokens."""

    def __init__(self, loaded: Loaded, *, compiled: bool = False) -> None:
        """Try what the model can do; a few forward passes of some tokens. `compiled` fuses its pointwise parts."""
        self._model, self._device = loaded.model, loaded.device
        self._body = loaded.model
        self._prefixes: dict[Ids, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        config = loaded.model.config.get_text_config()
        self.window = min([loaded.max_length, *_windows(config)])
        self._eager = getattr(config, "_attn_implementation", "") == "eager"
        self._vocabulary = int(config.vocab_size)
        if compiled:
            _compile(loaded.model)
        self._try_apart()
        self.shares = getattr(config, "_attn_implementation", "") in ("sdpa", "eager") and self._try_sharing()

    @torch.inference_mode()
    def losses(self, batch: Sequence[Line], ranked: bool) -> tuple[Floats, Floats | None]:
        """Return all target tokens' losses (nats) and, where `ranked`, ranks: [target tokens of the batch], in order.

        All lines have the same prefix. Raises torch.OutOfMemoryError, or RuntimeError where a CPU has no memory left.
        """
        labels = torch.tensor([token for line in batch for one in line.sequences for token in one.target])
        output, chosen = self._chosen(batch)
        # Made once: small tensors that stay, made between large ones that go, keep a CPU's memory from being reused.
        losses, ranks = torch.empty((2, len(labels)), dtype=torch.float32, device=self._device)
        kind = "cpu" if self._device.type == "cpu" else "cuda"
        columns = (chosen, labels.to(self._device), losses, ranks)
        for some, *wanted in _chunks(columns, _HEAD_ELEMENTS[kind] // self._vocabulary):
            logits = self._head(output, some) if self._apart else some
            for part, label, loss, rank in _chunks((logits, *wanted), _SOFTMAX_ELEMENTS[kind] // self._vocabulary):
                _write_losses(part, label, loss, rank if ranked else None)
        return losses.cpu().numpy(), ranks.cpu().numpy() if ranked else None

    @torch.inference_mode()
    def logits(self, batch: Sequence[Line]) -> Iterator[torch.Tensor]:
        """Yield the logits that all target tokens are predicted from, in order, some at a time: [some, vocabulary].

        Raises what `losses` raises.
        """
        output, chosen = self._chosen(batch)
        kind = "cpu" if self._device.type == "cpu" else "cuda"
        for (some,) in _chunks((chosen,), _HEAD_ELEMENTS[kind] // self._vocabulary):
            yield self._head(output, some) if self._apart else some

    def free(self) -> None:
        """Give back what memory can be given back."""
        self._prefixes.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _chosen(self, batch: Sequence[Line]) -> tuple[Any, torch.Tensor]:
        """Return the body's output, and in order the states that predict target tokens; logits, where it is whole."""
        width = max(len(line.ids) for line in batch)
        places = [place for number, line in enumerate(batch) for place in _places(line, number * width)]
        output = self._run(batch, width)
        states = output.last_hidden_state if self._apart else output.logits
        return output, states.flatten(0, 1)[torch.tensor(places, device=self._device)]

    def _run(self, batch: Sequence[Line], width: int) -> Any:
        ids = torch.zeros((len(batch), width), dtype=torch.long)
        for number, line in enumerate(batch):
            ids[number, : len(line.ids)] = torch.tensor(line.ids)
        prefix = batch[0].prefix
        if not batch[0].shares:
            return self._body(input_ids=ids.to(self._device), use_cache=False)  # causal: no token sees what is padded
        parts, positions = _parts(batch, width)
        return self._body(
            input_ids=ids.to(self._device),
            attention_mask=self._mask(parts.to(self._device), len(prefix)),
            position_ids=positions.to(self._device),
            past_key_values=_SharedPrefix(self._keys_and_values(prefix), len(batch)) if prefix else None,
            use_cache=bool(prefix),
        )

    def _mask(self, parts: torch.Tensor, prefix: int) -> torch.Tensor:
        """Say who sees whom, [lines, 1, width, prefix + width]: all the prefix, and of the line stem and own branch.

        Padding sees itself alone, since a softmax over nothing is no number.
        """
        width = parts.shape[1]
        same = parts[:, :, None] == parts[:, None, :]
        earlier = torch.ones((width, width), dtype=torch.bool, device=parts.device).tril()
        seen = earlier & (same | ((parts == 0)[:, None, :] & (parts >= 0)[:, :, None]))
        seen = torch.where(same & (parts < 0)[:, :, None], torch.eye(width, dtype=torch.bool, device=seen.device), seen)
        seen = torch.nn.functional.pad(seen, (prefix, 0), value=True)[:, None]
        if not self._eager:
            return seen
        low = torch.finfo(self._model.dtype).min
        return torch.zeros(seen.shape, dtype=self._model.dtype, device=seen.device).masked_fill(~seen, low)

    def _keys_and_values(self, prefix: Ids) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each layer's keys and values of a prefix, computed once; the latest few are kept."""
        if prefix not in self._prefixes:
            cache = DynamicCache()
            ids = torch.tensor([prefix], device=self._device)
            self._body(input_ids=ids, past_key_values=cache, use_cache=True)
            if len(self._prefixes) == _KEPT_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[prefix] = [(layer.keys, layer.values) for layer in cache.layers]
        return self._prefixes[prefix]

    def _head(self, output: Any, states: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states [positions, hidden size]: the model's own forward, its body given."""
        output.last_hidden_state = states[None]
        with _standing_in(self._body, output):
            logits: torch.Tensor = self._model(input_ids=self._nothing, use_cache=False).logits[0]
            return logits

    @cached_property
    def _nothing(self) -> torch.Tensor:
        return torch.zeros((1, 1), dtype=torch.long, device=self._device)

    @torch.inference_mode()
    def _try_apart(self) -> None:
        """Take the model apart where body and head by themselves give the logits that they give as a whole."""
        self._apart = False
        whole = self._model
        ids = _some_ids(self._vocabulary, 7).to(self._device)[None]
        expected = whole(input_ids=ids, use_cache=False).logits[0]
        try:
            self._body = whole.get_decoder()
            output = self._body(input_ids=ids, use_cache=False)
            found = self._head(output, output.last_hidden_state[0])
            self._apart = self._body is not whole and _close(found, expected, self._model.dtype)
        except _CANNOT:
            self._apart = False  # an architecture of another make: its head can't be run by itself
        if not self._apart:
            self._body = whole

    @torch.inference_mode()
    def _try_sharing(self) -> bool:
        """Tell whether a prefix and two branches give the losses that plain sequences give."""
        ids = tuple(_some_ids(self._vocabulary, 24).tolist())
        if self.window < len(ids):
            return False
        one = Encoded(ids=ids[:18], target_start=14)
        other = Encoded(ids=ids[:14] + ids[18:], target_start=14)
        plain = [Line(prefix=(), stem=ids[:14], sequences=(sequence,)) for sequence in (one, other)]
        shared = Line(prefix=ids[:8], stem=ids[8:14], sequences=(one, other))
        try:
            found = self.losses([shared, Line(prefix=ids[:8], stem=ids[8:14], sequences=(one,))], False)[0]
        except _CANNOT:
            return False
        expected = torch.from_numpy(self.losses(plain, False)[0])
        return _close(torch.from_numpy(found[: len(expected)]), expected, self._model.dtype)


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a shared prefix: new keys and values are put behind it for the attention, and kept nowhere."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, lines: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys.expand(lines, -1, -1, -1), values.expand(lines, -1, -1, -1)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **more: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class _SharedPrefix(Cache):  # type: ignore[misc]
    """A prefix's keys and values under every line of a batch."""

    def __init__(self, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], lines: int) -> None:
        super().__init__(layers=[_PrefixLayer(keys, values, lines) for keys, values in layers])


def _compile(model: Any) -> None:
    """Compile norms and MLPs, for any length. Whole layers would be compiled anew for each of them, and each cache."""
    for module in model.modules():
        if type(module).__name__.endswith(("Norm", "MLP")):
            module.compile(dynamic=True)


@contextmanager
def _standing_in(body: Any, output: Any) -> Iterator[None]:
    """Let a module answer with what it answered before, while the block runs."""
    own = vars(body).get("forward")  # hooked models have one, in front of their class's
    body.forward = lambda *arguments, **named: output
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


def _write_losses(logits: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor, ranks: torch.Tensor | None) -> None:
    """Write -log p and, where wanted, the rank of each label: [positions]. Both in fp32, in which counts are exact."""
    exact = logits.float()
    losses.copy_(torch.nn.functional.cross_entropy(exact, labels, reduction="none"))
    if ranks is not None:
        # Compared into floats: on a CPU, counting booleans takes several times as long.
        likelier = torch.gt(exact, exact.gather(1, labels[:, None]), out=torch.empty_like(exact))
        ranks.copy_(1 + likelier.sum(dim=-1))


def _chunks(columns: Sequence[torch.Tensor], size: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Split tensors of one length along it, all alike."""
    return zip(*(torch.split(column, max(size, 1)) for column in columns), strict=True)


def _windows(config: Any) -> Iterator[int]:
    """Yield the lengths up to which a model looks at all there is, and in one way."""
    for name in ("sliding_window", "attention_chunk_size", "window_size"):
        if limit := getattr(config, name, None):
            yield int(limit)
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(one for one in rope.values() if isinstance(one, dict))):
        if kind.get("rope_type") == "longrope":  # all positions of a batch turn otherwise where one is beyond this
            yield int(kind["original_max_position_embeddings"])


def _places(line: Line, start: int) -> Iterator[int]:
    """Yield, for each target token of a line that starts at `start`, the place of the state that predicts it."""
    end = start + len(line.stem)
    for sequence in line.sequences:
        yield start + len(line.stem) - 1
        yield from range(end, end := end + sequence.target_tokens - 1)


def _parts(batch: Sequence[Line], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return which part each token belongs to (0 stem, 1... branches, -1 padding), and its position; [lines, width]."""
    parts = torch.full((len(batch), width), -1, dtype=torch.long)
    positions = torch.zeros((len(batch), width), dtype=torch.long)
    for number, line in enumerate(batch):
        begin = len(line.prefix)
        end = len(line.stem)
        parts[number, :end] = 0
        positions[number, :end] = torch.arange(begin, begin + end)
        for branch, sequence in enumerate(line.sequences, start=1):
            start, end = end, end + sequence.target_tokens - 1
            parts[number, start:end] = branch
            first = begin + len(line.stem)
            positions[number, start:end] = torch.arange(first, first + end - start)
    return parts, positions


def _some_ids(vocabulary: int, count: int) -> torch.Tensor:
    """Return a few different ids, the same ones each time."""
    return (torch.arange(count) * 7919 + 5) % vocabulary


def _close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether values agree as far as a precision goes: NaN, as of broken weights, agrees with NaN."""
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    return torch.allclose(found.float(), expected.float(), rtol=tolerance / 10, atol=tolerance, equal_nan=True)
