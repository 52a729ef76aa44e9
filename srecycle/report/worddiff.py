"""What a rewrite changed: two texts, compared word by word.

Pure. Out: pieces in reading order, which a template marks as kept, added or removed; together, all but the removed ones
are the new text, character by character.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import Literal

_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
_CAREFUL = 600
"""Above so many words the matcher may take frequent ones for noise: texts of one repeated word would take minutes."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Neighbouring words that share a fate."""

    kind: Literal["same", "added", "removed"]
    text: str


def word_diff(before: str, after: str) -> list[Piece]:
    """Return the new text in pieces, and between them what was removed from the old one."""
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    matcher = SequenceMatcher(None, old, new, autojunk=max(len(old), len(new)) > _CAREFUL)
    found = []
    for tag, old_from, old_to, new_from, new_to in matcher.get_opcodes():
        if tag == "equal":
            found.append(Piece(kind="same", text="".join(new[new_from:new_to])))
            continue
        found.append(Piece(kind="removed", text="".join(old[old_from:old_to])))
        found.append(Piece(kind="added", text="".join(new[new_from:new_to])))
    return _readable([one for one in found if one.text])


def _readable(pieces: Sequence[Piece]) -> list[Piece]:
    """Fold a lone space between two changes into them: a rewritten sentence reads as one change, not as twenty."""
    marked: list[Piece] = []
    for place, one in enumerate(pieces):
        inner = 0 < place < len(pieces) - 1
        if one.kind == "same" and one.text.isspace() and inner:
            marked += [Piece(kind="removed", text=one.text), Piece(kind="added", text=one.text)]
        else:
            marked.append(one)
    folded: list[Piece] = []
    for same, run in groupby(marked, key=lambda one: one.kind == "same"):
        few = list(run)
        if same:
            folded += few
            continue
        removed, added = (_together(few, kind) for kind in ("removed", "added"))
        folded += [Piece(kind="removed", text=removed)] if removed.strip() else []
        folded += [Piece(kind="added", text=added)] if added else []
    return folded


def _together(pieces: Sequence[Piece], kind: str) -> str:
    return "".join(one.text for one in pieces if one.kind == kind)
