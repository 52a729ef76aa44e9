"""How the rows of each step are laid out on devices: micro-batches, packing, and the dataset that TRL reads.

A step's rows are what they are; how they are laid out moves nothing but the last bits of a sum. Packing joins rows of
one step into bins of at most `max_length` tokens by TRL's best fit decreasing; position ids that begin anew keep them
from seeing each other. An entry is what stands on one line of a micro-batch: a row, or a bin. Where devices would be
given unequal numbers of entries, empty ones are added: they have no target, so they weigh nothing in the loss, which is
a mean over target tokens.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from srecycle.student.encoding import Encoded
from srecycle.trainer.order import Passes, Step

IGNORED = -100
"""The label that PyTorch's cross entropy leaves out."""

Entry = tuple[int, ...]
Line = dict[str, list[int]]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Entries of all passes, one pass after the other, `per_pass` each and `per_step` a step (the last may have less).

    A device computes `device_batch` of them at a time, `accumulation` times a step.
    """

    entries: Sequence[Entry]
    per_pass: int
    per_step: int
    device_batch: int
    accumulation: int
    packed: bool

    def dataset(self) -> Any:
        """Return what TRL counts and samples from: the places of all entries."""
        from datasets import Dataset

        return Dataset.from_dict({"place": range(len(self.entries))})

    def lines(self, sequences: Sequence[Encoded], places: Iterable[int]) -> list[Line]:
        """Return the entries at some places as TRL's collator takes them."""
        return [line([sequences[row] for row in self.entries[place]], self.packed) for place in places]


def line(entry: Sequence[Encoded], packed: bool) -> Line:
    """Return the token ids and labels of an entry, and of a packed one the lengths of its parts.

    Only a target has labels, and of it only what something stands before. An entry of no rows is two tokens without a
    label.
    """
    rows = entry or (_EMPTY,)
    made = {
        "input_ids": [token for one in rows for token in one.ids],
        "labels": [label for one in rows for label in labels(one)],
    }
    return {**made, "seq_lengths": [len(one.ids) for one in rows]} if packed else made


_EMPTY = Encoded(ids=(0, 0), target_start=2)


def labels(sequence: Encoded) -> list[int]:
    """Return a sequence's labels: its target, and nothing of what stands before."""
    return [IGNORED] * (len(sequence.ids) - sequence.target_tokens) + list(sequence.target)


def laid_out(
    passes: Passes,
    sequences: Sequence[Encoded],
    *,
    batch_size: int,
    device_batch: int,
    processes: int,
    packing: int | None,
) -> Layout:
    """Lay out a training for `processes` devices of at most `device_batch` entries at a time.

    `packing` is the length of a bin in tokens; None is no packing. `processes` must divide `batch_size`.
    """
    numbers = range(passes.begun)
    if packing is None:
        split = math.gcd(batch_size // processes, device_batch)
        rows = [[(row,) for step in passes.of(number) for row in step] for number in numbers]
        size = len(rows[0]) if processes == 1 else _multiple(len(rows[0]), processes * split)
        return Layout(
            entries=[entry for one in rows for entry in _filled(one, size)],
            per_pass=size,
            per_step=batch_size,
            device_batch=split,
            accumulation=batch_size // processes // split,
            packed=False,
        )
    binned = [_bins(passes.of(number), sequences, packing) for number in numbers]
    most = max(len(bins) for steps in binned for bins in steps)
    split = min(device_batch, math.ceil(most / processes))
    size = _multiple(most, processes * split)
    return Layout(
        entries=[entry for steps in binned for bins in steps for entry in _filled(bins, size)],
        per_pass=size * passes.steps_per_pass,
        per_step=size,
        device_batch=split,
        accumulation=size // processes // split,
        packed=True,
    )


def _bins(steps: Sequence[Step], sequences: Sequence[Encoded], length: int) -> list[list[Entry]]:
    """Pack the rows of each step by TRL, which is given a row as its number, once for each of its tokens.

    It packs in batches of as many rows as a step has, so that no bin holds rows of two steps.
    """
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    runs = Dataset.from_dict({"row": [[row] * len(sequences[row].ids) for step in steps for row in step]})
    packed = pack_dataset(runs, length, "bfd", {"batch_size": len(steps[0]), "keep_in_memory": True})
    bins = (tuple(_firsts(one["row"], one["seq_lengths"])) for one in packed)
    binned: list[list[Entry]] = []
    for step in steps:
        binned.append([])
        while sum(map(len, binned[-1])) < len(step):
            binned[-1].append(next(bins))
        assert {row for one in binned[-1] for row in one} == set(step), "a bin holds rows of two steps"
    return binned


def _firsts(run: Sequence[int], lengths: Sequence[int]) -> Iterator[int]:
    start = 0
    for length in lengths:
        yield run[start]
        start += length


def _filled(entries: Sequence[Entry], size: int) -> list[Entry]:
    return [*entries, *[()] * (size - len(entries))]


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What one step reads: tokens of its rows, those of them that are targets, and all that devices compute."""

    seen: int
    target: int
    padded: int


def count_tokens(passes: Passes, layout: Layout, sequences: Sequence[Encoded]) -> list[Tokens]:
    """Count the tokens of each step that is trained."""
    counted = []
    for place, step in enumerate(passes.trained()):
        number, within = divmod(place, passes.steps_per_pass)
        start = number * layout.per_pass + within * layout.per_step
        entries = layout.entries[start : min(start + layout.per_step, (number + 1) * layout.per_pass)]
        widths = [sum(len(sequences[row].ids) for row in entry) or len(_EMPTY.ids) for entry in entries]
        batches = [widths[at : at + layout.device_batch] for at in range(0, len(widths), layout.device_batch)]
        counted.append(
            Tokens(
                seen=sum(len(sequences[row].ids) for row in step),
                target=sum(sequences[row].target_tokens for row in step),
                padded=sum(sum(one) if layout.packed else len(one) * max(one) for one in batches),
            )
        )
    return counted
