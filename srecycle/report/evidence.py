"""What a run's artifacts say beyond its metrics: score distributions, the training curve, sampled decisions.

In: a run; its stages name the artifacts. Out: plain records. An artifact that is missing or can't be read (a failed
run, a pruned store) gives None or less detail, never an error and never a number.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srecycle.report.runs import Run
from srecycle.rows import KINDS, OK, PHASES, Kind, Phase, kind_of, version_order
from srecycle.scorer import LIKELIHOODS, scores

Values = npt.NDArray[np.float64]

_SCORING = ("likelihoods", "likelihoods_response")
_LONGEST = 4000
"""Texts are cut here, in characters: a report is for reading, the store has everything."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One score over rows: of the original versions, and of the versions that are kept to train on."""

    before: Values
    after: Values


def distributions(run: Run) -> dict[str, Distribution] | None:
    """Return the distributions of `ifd` and `r_ifd`, or None where the run has no likelihoods."""
    likelihoods, training = _table(run, "likelihoods", "likelihoods"), _table(run, "assemble", "training")
    if likelihoods is None or training is None:
        return None
    original = _scored(likelihoods.filter(pc.equal(likelihoods["version"], "original")))
    kept = training.filter(training["kept"])
    return {
        name: Distribution(before=_finite(original[name]), after=_finite(_floats(kept[name])))
        for name in ("ifd", "r_ifd")
    }


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A training's losses (nats per token) by step."""

    steps: Values
    losses: Values


def curve(run: Run) -> Curve | None:
    """Return the training curve, or None where nothing was trained."""
    table = _table(run, "train", "curve")
    if table is None:
        return None
    known = table.filter(pc.is_valid(table["loss"]))
    found = Curve(steps=_floats(known["step"]), losses=_floats(known["loss"]))
    return found if len(found.steps) and np.isfinite(found.losses).all() else None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A version as it is shown: its texts, or the status that says why there are none; its scores where it has them."""

    version: str
    status: str
    instruction: str = ""
    input: str = ""
    response: str = ""
    critique: str = ""
    ifd: float | None = None
    r_ifd: float | None = None
    taken: bool = False

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
    """A sampled row: all its versions, both decisions, and what became of it."""

    id: str
    position: int
    label: str
    taken: str
    kept: bool
    reason: str
    versions: Sequence[Shown]
    choices: Sequence[Choice]

    @property
    def outcome(self) -> str:
        """What became of the row, in words."""
        return f"{kind_of(self.taken)}: {'kept' if self.kept else self.reason.replace('_', ' ')}"


def cases(run: Run, most: int, seed: int = 0) -> list[Case]:
    """Sample rows evenly over outcomes; the same run and seed give the same rows. Empty where nothing was assembled."""
    training = _table(run, "assemble", "training")
    if training is None:
        return []
    outcomes = training.select(["id", "version", "kept", "reason"]).to_pylist()
    chosen = _spread(outcomes, most, random.Random(seed))
    ids = pa.array([outcomes[place]["id"] for place in chosen], type=pa.string())
    versions, choices = _versions(run, ids), _choices(run, ids)
    return [
        _case(line, versions.get(line["id"], {}), choices.get(line["id"], []))
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


def _case(line: Mapping[str, Any], versions: Mapping[str, Shown], choices: Sequence[Choice]) -> Case:
    fallback = Shown(
        version=line["version"],
        status=OK,
        instruction=_cut(line["instruction"]),
        input=_cut(line["input"]),
        response=_cut(line["response"]),
        ifd=line["ifd"],
        r_ifd=line["r_ifd"],
    )
    names = sorted({*KINDS, *versions, line["version"]}, key=version_order)
    shown = {name: versions.get(name, Shown(version=name, status="not made")) for name in names}
    if shown[line["version"]].status != OK:
        shown[line["version"]] = fallback
    return Case(
        id=line["id"],
        position=line["position"],
        label=_cut(line["label"]),
        taken=line["version"],
        kept=line["kept"],
        reason=line["reason"],
        versions=[replace(one, taken=name == line["version"]) for name, one in shown.items()],
        choices=choices,
    )


def _versions(run: Run, ids: pa.Array) -> dict[str, dict[str, Shown]]:
    """Return the versions of these rows, by row id and version."""
    scored = {(line["id"], line["version"]): line for line in _score_lines(run, ids)}
    found: dict[str, dict[str, Shown]] = {}
    for line in _version_lines(run, ids):
        score = scored.get((line["id"], line["version"]), {})
        found.setdefault(line["id"], {})[line["version"]] = Shown(
            version=line["version"],
            status=line["status"],
            instruction=_cut(line["instruction"]),
            input=_cut(line["input"]),
            response=_cut(line["response"]),
            critique=_cut(line["critique"]),
            ifd=score.get("ifd"),
            r_ifd=score.get("r_ifd"),
        )
    return found


def _version_lines(run: Run, ids: pa.Array) -> Iterator[dict[str, Any]]:
    columns = ["id", "instruction", "input", "response"]
    if (originals := _table(run, "source", "rows")) is not None:
        for line in _of(originals, ids).select(columns).to_pylist():
            yield {**line, "version": "original", "status": OK, "critique": ""}
    for phase in PHASES:
        if (candidates := _table(run, f"reflect_{phase}", "candidates")) is not None:
            yield from _of(candidates, ids).select([*columns, "version", "status", "critique"]).to_pylist()


def _score_lines(run: Run, ids: pa.Array) -> Iterator[dict[str, Any]]:
    for label in _SCORING:
        if (likelihoods := _table(run, label, "likelihoods")) is not None:
            few = _of(likelihoods, ids)
            computed = _scored(few)
            for place, line in enumerate(few.select(["id", "version"]).to_pylist()):
                yield {**line, **{name: _or_none(computed[name][place]) for name in ("ifd", "r_ifd")}}


def _choices(run: Run, ids: pa.Array) -> dict[str, list[Choice]]:
    """Return the decisions over these rows, by row id, in the order of the phases."""
    found: dict[str, list[Choice]] = {}
    for phase in PHASES:
        if (decisions := _table(run, f"select_{phase}", "decisions")) is not None:
            for line in _of(decisions, ids).to_pylist():
                identifier = line.pop("id")
                line.pop("margin")
                found.setdefault(identifier, []).append(Choice(phase=phase, **line))
    return found


def _table(run: Run, label: str, name: str) -> pa.Table | None:
    folder = run.artifact(label)
    if folder is None:
        return None
    try:
        return pq.read_table(folder / f"{name}.parquet")
    except (OSError, pa.ArrowException):
        return None


def _of(table: pa.Table, ids: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["id"], value_set=ids))


def _scored(likelihoods: pa.Table) -> dict[str, Values]:
    absent = np.full(len(likelihoods), np.nan)  # in a store of an older version
    names = likelihoods.column_names
    return scores({name: _floats(likelihoods[name]) if name in names else absent for name in LIKELIHOODS})


def _floats(column: pa.ChunkedArray) -> Values:
    values: Values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def _finite(values: Values) -> Values:
    finite: Values = values[np.isfinite(values)]
    return finite


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cut(text: str) -> str:
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[:_LONGEST]}… ({left:,} more characters)"
