"""Which sequences are computed together: a tree of token ids, cut into a prefix, stems and branches.

    prefix (computed once for all its lines) | stem, branch, branch, ...

A `Line` is one line of a batch. Its stem is what is left of a context after the prefix, each branch the target of one
sequence with that context. A branch sees the prefix, the stem and itself, never another branch. Pure: ids in, lines
out, the same for the same sequences in any order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from srecycle.student.encoding import Encoded

_LEAST_PREFIX = 8
"""A shorter prefix costs more in bookkeeping than it saves."""

_LEAST_FAMILY = 16
"""So many sequences must share a prefix for it to be computed apart: each prefix has batches of its own."""

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line: `prefix` ids, the stem's ids, and the sequences whose targets are its branches."""

    prefix: Ids
    stem: Ids
    sequences: tuple[Encoded, ...]

    @cached_property
    def ids(self) -> Ids:
        """What the model is fed: the stem, then each target but for its last token, which predicts nothing."""
        return self.stem + tuple(token for one in self.sequences for token in one.ids[_begin(one) : -1])

    @property
    def shares(self) -> bool:
        """Whether it needs a mask of its own."""
        return bool(self.prefix) or len(self.sequences) > 1


def lines_of(sequences: Sequence[Encoded], window: int) -> list[Line]:
    """Arrange distinct sequences as lines: those that share nothing, then by prefix; longest first.

    `window` is how far apart, in tokens, the model lets one token see another: lines that share stay within it, prefix
    included, and longer sequences share nothing (0: none does), since a shared line's mask knows of no window.
    """
    ordered = sorted(sequences, key=lambda one: (_context(one), one.ids, one.target_start))
    apart = [one for one in ordered if len(one.ids) > window]
    together = [one for one in ordered if len(one.ids) <= window]
    lines = [Line(prefix=(), stem=_context(one), sequences=(one,)) for one in apart]
    for prefix, family in _families(together, 0):
        for context, members in groupby(family, key=_context):
            stem = context[len(prefix) :]
            if len(stem) < _LEAST_PREFIX:
                lines += [Line(prefix=prefix, stem=stem, sequences=(one,)) for one in members]
            else:
                lines += _branched(prefix, stem, list(members), window)
    return sorted(lines, key=lambda line: (line.shares, line.prefix, -len(line.ids), line.ids))


def _branched(prefix: Ids, stem: Ids, members: Sequence[Encoded], window: int) -> Iterator[Line]:
    branches: list[Encoded] = []
    length = len(prefix) + len(stem)
    for one in members:
        if branches and length + one.target_tokens > window:
            yield Line(prefix=prefix, stem=stem, sequences=tuple(branches))
            branches, length = [], len(prefix) + len(stem)
        branches.append(one)
        length += one.target_tokens
    yield Line(prefix=prefix, stem=stem, sequences=tuple(branches))


def _families(ordered: Sequence[Encoded], depth: int) -> Iterator[tuple[Ids, list[Encoded]]]:
    """Yield (prefix, its sequences) for sequences in order of their contexts, which agree up to `depth`."""
    if not ordered:
        return
    shared = _agreement(_context(ordered[0]), _context(ordered[-1]), depth)
    enough = _LEAST_PREFIX + (shared if shared >= _LEAST_PREFIX else 0)
    rest: list[Encoded] = []
    for _, group in groupby(ordered, key=lambda one: _context(one)[shared : shared + 1]):
        members = list(group)
        if not _LEAST_FAMILY <= len(members) < len(ordered):
            rest += members
            continue
        for prefix, family in _families(members, shared):
            if len(prefix) >= enough:
                yield prefix, family
            else:
                rest += family
    if rest:
        # A stem keeps at least one token: its last one is what the first target token is predicted from.
        length = min(shared, *(len(_context(one)) - 1 for one in rest))
        worth = len(rest) >= _LEAST_FAMILY and length >= _LEAST_PREFIX
        yield (_context(rest[0])[:length] if worth else ()), rest


def _agreement(first: Ids, last: Ids, known: int) -> int:
    """Return how many tokens two contexts share from the start: in sorted order, as many as all between them."""
    end = min(len(first), len(last))
    place = known
    while place < end and first[place] == last[place]:
        place += 1
    return place


def _begin(sequence: Encoded) -> int:
    """Return where the predicted part of a sequence begins: nothing stands before its very first token."""
    return max(sequence.target_start, 1)


def _context(sequence: Encoded) -> Ids:
    return sequence.ids[: _begin(sequence)]
