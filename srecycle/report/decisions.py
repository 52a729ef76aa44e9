"""Sampled rows with everything that was decided about them: the decision browser's contents.

In: a run; its stages name the artifacts. Out: plain records. What is missing (a failed run, a pruned store) leaves less
detail, never an error and never a number.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from srecycle.report.comparison import cut
from srecycle.report.runs import Run
from srecycle.report.tables import SCORING, lines_of, of, scored, table
from srecycle.report.worddiff import Piece, word_diff
from srecycle.rows import KINDS, OK, PHASES, Kind, Phase, kind_of, own_rows, version_order
from srecycle.scorer import LIKELIHOODS

LONGEST = 4000
"""Texts are cut here, in characters: a report is for reading, the store has everything."""

_MOST_TOKENS = 250
_TEXTS = ("instruction", "input", "response")
_TOKENS = ("y_tokens", "y_given_x_token_losses", "y_token_losses")


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token of a response and its losses (nats), after its instruction and without it."""

    text: str
    given_instruction: float
    alone: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A version as it is shown: its texts, or the status that says why there are none; its scores where it has them.

    `changes` are its instruction and response compared with the original's, by name, for a version that is another
    text. `tokens` begin the response, where token losses were kept; `more_tokens` are not shown.
    """

    version: str
    status: str
    instruction: str = ""
    input: str = ""
    response: str = ""
    critique: str = ""
    ifd: float | None = None
    r_ifd: float | None = None
    taken: bool = False
    changes: Mapping[str, Sequence[Piece]] | None = None
    tokens: Sequence[Token] = ()
    more_tokens: int = 0

    @property
    def kind(self) -> Kind:
        """How it was made, whichever sample it is."""
        return kind_of(self.version)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A phase's decision over one row; values are those of the selector's score, where it has one.

    `challenger` is the best of as many `challengers` as the selector could judge. `flip` is by how much the selector's
    threshold would have to change for the other one.
    """

    phase: Phase
    incumbent: str
    challenger: str
    chosen: str
    incumbent_value: float | None
    challenger_value: float | None
    reason: str
    flip: float | None = None
    challengers: int = 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sampled row: all its versions, both decisions, and what became of it.

    `flip` is by how much the limit `flip_of` of one keep filter would have to change for the row's other fate.
    """

    id: str
    position: int
    label: str
    taken: str
    kept: bool
    reason: str
    versions: Sequence[Shown]
    choices: Sequence[Choice]
    flip: float | None = None
    flip_of: str = ""

    @property
    def outcome(self) -> str:
        """What became of the row, in words."""
        return f"{kind_of(self.taken)}: {'kept' if self.kept else self.reason.replace('_', ' ')}"

    @property
    def reasons(self) -> list[str]:
        """The reasons of its decisions, each with its phase, in words."""
        return [f"{choice.phase}: {choice.reason.replace('_', ' ')}" for choice in self.choices]


def cases(run: Run, most: int, seed: int = 0, longest: int = LONGEST) -> list[Case]:
    """Sample rows evenly over outcomes; the same run and seed give the same rows. Empty where nothing was assembled."""
    training = table(run, "assemble", "training")
    if training is None:
        return []
    training = own_rows(training)
    outcomes = training.select(["id", "version", "kept", "reason"]).to_pylist()
    chosen = _spread(outcomes, most, random.Random(seed))
    ids = pa.array([outcomes[place]["id"] for place in chosen], type=pa.string())
    versions, choices = _versions(run, ids, longest), _choices(run, ids)
    return [
        _case(line, versions.get(line["id"], {}), choices.get(line["id"], []), longest)
        for line in training.take(pa.array(chosen, type=pa.int64())).to_pylist()
    ]


def _spread(outcomes: Sequence[Mapping[str, Any]], most: int, rng: random.Random) -> list[int]:
    """Return line numbers: one of every outcome in turn until there are enough, then grouped by outcome."""
    lines: dict[tuple[int, str], list[int]] = {}
    for place, line in enumerate(outcomes):
        lines.setdefault((KINDS.index(kind_of(line["version"])), line["reason"]), []).append(place)
    for name in sorted(lines):
        rng.shuffle(lines[name])
    turns = (places[turn] for turn in range(most) for _, places in sorted(lines.items()) if turn < len(places))
    taken = {place for place, _ in zip(turns, range(most), strict=False)}
    return [place for name in sorted(lines) for place in sorted(taken.intersection(lines[name]))]


def _case(line: Mapping[str, Any], versions: Mapping[str, Shown], choices: Sequence[Choice], longest: int) -> Case:
    fallback = Shown(
        version=line["version"], status=OK, **_cut_texts(line, longest), ifd=line["ifd"], r_ifd=line["r_ifd"]
    )
    names = sorted({*KINDS, *versions, line["version"]}, key=version_order)
    shown = {name: versions.get(name, Shown(version=name, status="not made")) for name in names}
    if shown[line["version"]].status != OK:
        shown[line["version"]] = fallback
    return Case(
        id=line["id"],
        position=line["position"],
        label=cut(line["label"], longest),
        taken=line["version"],
        kept=line["kept"],
        reason=line["reason"],
        versions=[
            replace(_compared(one, shown["original"]), taken=name == line["version"]) for name, one in shown.items()
        ],
        choices=choices,
        flip=line.get("flip"),
        flip_of=line.get("flip_of", ""),
    )


def _compared(one: Shown, original: Shown) -> Shown:
    """Add how a version differs from the original; where either has no texts there is nothing to compare."""
    if one.version == "original" or OK not in (one.status, original.status) or one.status != original.status:
        return one
    texts = {name: (getattr(original, name), getattr(one, name)) for name in ("instruction", "response")}
    return replace(one, changes={name: word_diff(*two) for name, two in texts.items() if two[0] != two[1]})


def _versions(run: Run, ids: pa.Array, longest: int) -> dict[str, dict[str, Shown]]:
    """Return the versions of these rows, by row id and version."""
    scored_lines = {(line["id"], line["version"]): line for line in _score_lines(run, ids)}
    tokens = {(line["id"], line["version"]): line for line in _token_lines(run, ids)}
    found: dict[str, dict[str, Shown]] = {}
    for line in _version_lines(run, ids):
        key = (line["id"], line["version"])
        score = scored_lines.get(key, {})
        found.setdefault(line["id"], {})[line["version"]] = Shown(
            version=line["version"],
            status=line["status"],
            **_cut_texts(line, longest),
            critique=cut(line["critique"], longest),
            ifd=score.get("ifd"),
            r_ifd=score.get("r_ifd"),
            tokens=_tokens(tokens.get(key, {})),
            more_tokens=max(len(tokens.get(key, {}).get("y_tokens") or ()) - _MOST_TOKENS, 0),
        )
    return found


def _version_lines(run: Run, ids: pa.Array) -> Iterator[dict[str, Any]]:
    columns = ("id", *_TEXTS)
    if (originals := table(run, "source", "rows", columns)) is not None:
        for line in of(originals, ids).to_pylist():
            yield {**line, "version": "original", "status": OK, "critique": ""}
    for phase in PHASES:
        wanted = (*columns, "version", "status", "critique")
        if (candidates := table(run, f"reflect_{phase}", "candidates", wanted)) is not None:
            yield from of(candidates, ids).to_pylist()


def _score_lines(run: Run, ids: pa.Array) -> Iterator[dict[str, Any]]:
    for label in SCORING:
        if (likelihoods := table(run, label, "likelihoods", ("id", "version", *LIKELIHOODS))) is not None:
            few = of(likelihoods, ids)
            computed = scored(few)
            for place, line in enumerate(few.select(["id", "version"]).to_pylist()):
                yield {**line, **{name: _or_none(computed[name][place]) for name in ("ifd", "r_ifd")}}


def _token_lines(run: Run, ids: pa.Array) -> Iterator[dict[str, Any]]:
    for label in SCORING:
        found = lines_of(run, label, "likelihoods", ids, ("id", "version", *_TOKENS))
        if found is not None and set(_TOKENS) <= set(found.column_names):
            yield from found.to_pylist()


def _tokens(line: Mapping[str, Any]) -> list[Token]:
    columns = [line.get(name) for name in _TOKENS]
    if any(column is None for column in columns):
        return []
    return [
        Token(text=text, given_instruction=given, alone=alone)
        for text, given, alone in list(zip(*columns, strict=False))[:_MOST_TOKENS]
    ]


_CHOICE = ("id", "incumbent", "challenger", "challengers", "chosen", "incumbent_value", "challenger_value", "reason")


def _choices(run: Run, ids: pa.Array) -> dict[str, list[Choice]]:
    """Return the decisions over these rows, by row id, in the order of the phases."""
    found: dict[str, list[Choice]] = {}
    for phase in PHASES:
        if (decisions := table(run, f"select_{phase}", "decisions", (*_CHOICE, "flip"))) is not None:
            for line in of(decisions, ids).to_pylist():
                found.setdefault(line.pop("id"), []).append(Choice(phase=phase, **line))
    return found


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cut_texts(line: Mapping[str, Any], longest: int) -> dict[str, Any]:
    return {name: cut(line[name], longest) for name in _TEXTS}
