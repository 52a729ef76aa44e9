"""What a stage shows beyond its metrics: cost and throughput, distributions of scores, samples to read.

In: a stage that stands, and those before it. Out: plain values (numbers, texts, lists). Everything is read from
artifacts, so a stage that was found shows as much as one that was made.
"""

import hashlib
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from srecycle.config import flattened
from srecycle.rows import PHASES, Phase, kind_of
from srecycle.stage import Made

Values = npt.NDArray[np.float64]

RATIOS = ("ifd", "r_ifd")
QUANTILES = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}

_EDGES = np.linspace(0.0, 2.0, 41)
"""The same bins for every run. A ratio can be in the thousands: what is above 2 is in the last one."""

_LONGEST = 1000
"""Texts of tables are cut here, in characters: the store has everything."""

_PAID = ("calls/paid", "calls/usd_paid")

_DECIDED = ("id", "position", "version", "label", "kept", "reason", "flip", "flip_of", *RATIOS)


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Numbers by name; histograms as counts and edges; tables as columns and rows."""

    figures: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    tables: dict[str, dict[str, list[Any]]] = field(default_factory=dict)


def observed(label: str, made: Made, earlier: Mapping[str, Made], table_rows: int) -> Observed:
    """Return what a stage shows; of each table at most `table_rows` rows."""
    found = Observed(figures={f"{label}/{name}": value for name, value in _making(made)})
    if made.stage.name == "scores":
        table = made.artifact.table("scores", ["version", *RATIOS])
        _ratios(found, "before", table.filter(pc.equal(table["version"], "original")))
    if made.stage.name == "assemble":
        table = made.artifact.table("training", _DECIDED)  # without the texts, which are read of the sampled rows alone
        _ratios(found, "after", table.filter(table["kept"]))
        if table_rows:
            found.tables["decisions"] = _decisions(table, earlier, table_rows)
    judged = made.artifact.folder / "judgments.parquet"
    if table_rows and judged.is_file():
        found.tables[f"{label}/judged"] = _sampled(pq.read_table(judged), table_rows)
    return found


def _making(made: Made) -> Iterator[tuple[str, float]]:
    """Yield what making the artifact took: seconds, and the numbers of its notes (cost, tokens, throughput).

    What was paid for an artifact that was found was not paid for by this run.
    """
    provenance = made.artifact.provenance
    if "seconds" in provenance:
        yield "made_seconds", float(provenance["seconds"])
    for name, value in flattened(provenance.get("notes", {})).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value):
            yield name.replace(".", "/"), 0.0 if made.how == "hit" and name.replace(".", "/") in _PAID else value


def _ratios(found: Observed, when: str, table: pa.Table) -> None:
    """Add the distribution of each ratio over a table's rows; rows without one are counted."""
    for name in RATIOS:
        column: Values = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
        values = column[np.isfinite(column)]
        found.figures[f"{name}/{when}/unscored"] = len(column) - len(values)
        if not len(values):
            continue
        cuts = np.quantile(values, list(QUANTILES.values()))
        found.figures.update({f"{name}/{when}/{cut}": float(one) for cut, one in zip(QUANTILES, cuts, strict=True)})
        found.figures[f"{name}/{when}/above_one_share"] = float(np.mean(values >= 1))
        counts, _ = np.histogram(np.clip(values, _EDGES[0], _EDGES[-1]), _EDGES)
        found.histograms[f"{name}/{when}"] = {"counts": counts.tolist(), "edges": _EDGES.tolist()}


def _decisions(training: pa.Table, earlier: Mapping[str, Made], most: int) -> dict[str, list[Any]]:
    """Lay out sampled rows: the original, what was offered for it, and what was decided, phase by phase."""
    own = training.filter(pc.invert(pc.match_substring(training["id"], ":")))  # the others were mixed in
    taken = own.take(pa.array(_spread(own, most), type=pa.int64()))
    ids = taken["id"].to_pylist()
    texts, scores = _texts(earlier, ids), _lines(earlier, "scores", "scores", ids, ("ifd", "r_ifd"))
    decided = {phase: _lines_by_row(earlier, f"select_{phase}", "decisions", ids) for phase in PHASES}
    lines = []
    for row in taken.to_pylist():
        choices = {phase: decided[phase].get(row["id"], {}) for phase in PHASES}
        offered = _offered(row["version"], choices)
        original, rewrite = texts.get((row["id"], "original"), {}), texts.get((row["id"], offered), {})
        line = {
            "id": row["id"],
            "position": row["position"],
            "label": row["label"],
            "outcome": "kept" if row["kept"] else "refused",
            "reason": row["reason"],
            "flip": row["flip"],
            "flip_of": row["flip_of"],
            "taken": row["version"],
            "offered": offered,
            **{name: original.get(name) for name in ("instruction", "input", "response")},
            "critique": rewrite.get("critique"),
            "rewrite_status": rewrite.get("status"),
            "rewrite_instruction": rewrite.get("instruction"),
            "rewrite_response": rewrite.get("response"),
            **{f"{name}_original": scores.get((row["id"], "original"), {}).get(name) for name in RATIOS},
            **{f"{name}_offered": scores.get((row["id"], offered), {}).get(name) for name in RATIOS},
        }
        for phase, choice in choices.items():
            told = ("reason", "chosen", "incumbent_value", "challenger_value", "margin", "flip")
            line |= {f"{phase}_{name}": choice.get(name) for name in told}
        lines.append(line)
    return _as_table(lines)


def _spread(training: pa.Table, most: int) -> list[int]:
    """Return places of rows: one of every outcome in turn until there are enough; the same rows always."""
    ids, versions, reasons = (training[name].to_pylist() for name in ("id", "version", "reason"))
    places: dict[tuple[str, str], list[int]] = {}
    for place, (version, reason) in enumerate(zip(versions, reasons, strict=True)):
        places.setdefault((kind_of(version), reason), []).append(place)
    drawn = {name: heapq.nsmallest(most, all_, key=lambda place: _drawn(ids[place])) for name, all_ in places.items()}
    turns = ((turn, name) for turn in range(most) for name in sorted(drawn) if turn < len(drawn[name]))
    return sorted(drawn[name][turn] for (turn, name), _ in zip(turns, range(most), strict=False))


def _offered(taken: str, choices: Mapping[Phase, Mapping[str, Any]]) -> str:
    """Return the version beside which the original is shown: the one that was taken, else the last that was refused."""
    if taken != "original":
        return taken
    refused = [choice["challenger"] for phase in PHASES if (choice := choices[phase])]
    return refused[-1] if refused else taken


def _texts(earlier: Mapping[str, Made], ids: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    names = ("instruction", "input", "response")
    originals = _read(earlier, "source", "rows", ids, ("id", *names))
    found = {(line["id"], "original"): line for line in originals}
    for phase in PHASES:
        for line in _read(
            earlier, f"reflect_{phase}", "candidates", ids, ("id", "version", "status", *names, "critique")
        ):
            found[line["id"], line["version"]] = line
    return found


def _lines(
    earlier: Mapping[str, Made], label: str, name: str, ids: Sequence[str], columns: tuple[str, ...]
) -> dict[tuple[str, str], dict[str, Any]]:
    lines = _read(earlier, label, name, ids, ("id", "version", *columns))
    return {(line["id"], line["version"]): line for line in lines}


def _lines_by_row(earlier: Mapping[str, Made], label: str, name: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in _read(earlier, label, name, ids, None)}


def _read(
    earlier: Mapping[str, Made], label: str, name: str, ids: Sequence[str], columns: tuple[str, ...] | None
) -> list[dict[str, Any]]:
    """Return the lines of these rows; none where the run has no such stage."""
    if label not in earlier:
        return []
    file = earlier[label].artifact.folder / f"{name}.parquet"
    found: list[dict[str, Any]] = pq.read_table(
        file, columns=list(columns) if columns else None, filters=[("id", "in", list(ids))] if ids else None
    ).to_pylist()
    return found if ids else []


def _sampled(table: pa.Table, most: int) -> dict[str, list[Any]]:
    """Draw rows by a hash of their place, so that the same artifact always shows the same ones."""
    places = sorted(sorted(range(len(table)), key=lambda place: _drawn(str(place)))[:most])
    return _as_table(table.take(pa.array(places, type=pa.int64())).to_pylist(), table.column_names)


def _as_table(lines: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> dict[str, list[Any]]:
    names = list(lines[0]) if lines else list(columns)
    return {"columns": names, "rows": [[_plain(line[name]) for name in names] for line in lines]}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[:_LONGEST]}… ({left:,} more characters)"


def _drawn(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
