"""What people made of a blinded sheet (srecycle.judge.sheet): the majority of each row, and how far they agree.

In: the key, and the sheets that came back, as saved by the page or by any spreadsheet: commas, semicolons or tabs, any
order of columns, further ones too. Out: wins, ties and losses of own's answers by the label that most annotators gave
a row, and the paper's win rate over the rows that have one (arXiv:2402.10110: 57 win, 23 tie, 28 lose in its human
study). A row without labels, or with several that share the lead, has none; labels that are missing or can't be read
are counted and told with their file and line, and never guessed.
"""

import csv
import importlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np

from srecycle.errors import UserError
from srecycle.judge.pairs import VERDICTS, Tally, Verdict, win_rate
from srecycle.judge.sheet import Key
from srecycle.stage import Metrics

LABELS: Final = ("1", "2", "tie")
"""What annotators write: which answer is better. Spreadsheets may make 1.0 of a 1."""

_NEEDED = ("sheet", "row", "preference")
_SEPARATORS = ",;\t"
_ENCODINGS: Final[Mapping[bytes, str]] = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_LONGEST: Final = 2**31 - 1
_VALUES: Final[Mapping[str, float]] = {"lose": -1.0, "tie": 0.0, "win": 1.0}


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One annotator's verdicts by row, from own's point of view. `problems` has a line for each label that is none."""

    name: str
    verdicts: Mapping[str, Verdict]
    missing: int
    invalid: int
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What the sheets say. `verdicts` are the majority's by row, None where there is none; `unknown` tells why a figure
    is absent from the metrics."""

    metrics: Metrics
    verdicts: Mapping[str, Verdict | None]
    unknown: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Cell:
    row: str
    label: str
    place: str


def read_sheet(path: Path, key: Key) -> Sheet:
    """Read a sheet that came back. Raises UserError where it is none, or one of another study."""
    cells = list(_cells(path, key))
    names = {name for name, _ in cells}
    if len(names) != 1:
        seen = ", ".join(sorted(names)) or "none"
        raise UserError(f"{path} should hold the rows of one sheet of {key.study}; its column 'sheet' has {seen}")
    (name,) = names
    if name not in key.own_first:
        raise UserError(f"{path} is the sheet {name}, which the key doesn't know: it has {', '.join(key.own_first)}")
    if without := [row for row in key.rows if row not in key.own_first[name]]:
        raise UserError(
            f"the key of {key.study} doesn't say which answer of row {without[0]} came first in the sheet {name}: give "
            "the key as it was written"
        )
    return _read(name, [cell for _, cell in cells], path, key)


def _read(name: str, cells: Sequence[_Cell], path: Path, key: Key) -> Sheet:
    found: dict[str, set[str]] = {row: set() for row in key.rows}
    problems, unreadable = list[str](), set[str]()
    strangers = 0
    for cell in cells:
        if cell.row not in found:
            strangers += 1
            problems.append(f"{cell.place}: the key has no such row")
        elif cell.label in LABELS:
            found[cell.row].add(cell.label)
        elif cell.label:
            unreadable.add(cell.row)
            problems.append(f"{cell.place}: {cell.label[:40]!r} is none of {', '.join(LABELS)}")
        else:
            problems.append(f"{cell.place}: no label")
    present = {cell.row for cell in cells}
    problems += [f"{path}: row {row} is not there" for row in found if row not in present]
    twice = {row for row, labels in found.items() if len(labels) > 1}
    problems += [f"{path}: row {row} stands there twice, with different labels" for row in found if row in twice]
    invalid = unreadable | twice
    own_first = key.own_first[name]
    return Sheet(
        name=name,
        verdicts={
            row: _verdict(label, own_first[row])
            for row, labels in found.items()
            if row not in invalid
            for label in labels
        },
        missing=sum(not labels and row not in invalid for row, labels in found.items()),
        invalid=len(invalid) + strangers,
        problems=tuple(problems),
    )


def _verdict(label: str, own_first: bool) -> Verdict:
    if label == "tie":
        return "tie"
    return "win" if (label == "1") == own_first else "lose"


def _cells(path: Path, key: Key) -> Iterator[tuple[str, _Cell]]:
    """Yield the sheet's name and the label of each line; lines without any content are a spreadsheet's own."""
    # An answer may be longer than the 131,072 characters that a cell has by default; we wrote it ourselves.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))
    text = _text(path)
    header, separator = _header(text, path)
    places = {name: header.index(name) for name in _NEEDED}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for number, cells in enumerate(reader):
            begin, line = line, reader.line_num + 1
            if number == 0 or not any(cell.strip() for cell in cells):
                continue
            sheet, row, label = (cells[place].strip() if place < len(cells) else "" for place in places.values())
            place = f"{path}: line {begin} (row {row or 'without a name'})"
            yield sheet, _Cell(row=row, label=label.lower().removesuffix(".0").removesuffix(",0"), place=place)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not CSV ({error}): save the sheet as CSV again") from error


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from error
    try:
        return content.decode(_ENCODINGS.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError:
        # A spreadsheet's "CSV" is in the encoding of its country, in which names, rows and labels look the same.
        return content.decode("latin-1")


def _header(text: str, path: Path) -> tuple[list[str], str]:
    """Return the names of the columns and what separates them. Raises UserError where needed ones are missing."""
    first = next(iter(text.splitlines()), "")
    for separator in _SEPARATORS:
        try:
            names = [name.strip().lower() for name in next(csv.reader([first], delimiter=separator), [])]
        except csv.Error:
            continue
        if twice := [name for name in _NEEDED if names.count(name) > 1]:
            raise UserError(f"{path} has {twice[0]!r} twice in its first line: keep one column of that name")
        if set(_NEEDED) <= set(names):
            return names, separator
    raise UserError(
        f"{path} begins with {first[:60]!r}: expected CSV whose first line names the columns {', '.join(_NEEDED)}"
    )


def analysed(sheets: Sequence[Sheet], key: Key, seed: int) -> Analysis:
    """Return what the sheets say together.

    Metrics: `rows`, `sheets`, `labels`, `missing`, `invalid`; of the majority `judged`, `win`, `tie`, `lose`,
    `unjudged/REASON`, and `win_rate` with its bootstrap standard error and interval, drawn with `seed`; and, where
    several people labelled the same rows, `agreement` (the share of two labels of a row that are the same),
    `unanimous` (the share of those rows) and Krippendorff's alpha with labels as names (`alpha_nominal`) and as lose <
    tie < win (`alpha_ordinal`).

    Raises UserError where a sheet was given twice, or the library for alpha is missing.
    """
    if twice := [name for name, count in Counter(sheet.name for sheet in sheets).items() if count > 1]:
        raise UserError(f"the sheet {twice[0]} was given twice: one annotator must not count as two")
    given = {row: [sheet.verdicts[row] for sheet in sheets if row in sheet.verdicts] for row in key.rows}
    majority = {row: _majority(labels) for row, labels in given.items()}
    counts = Counter(found for found in majority.values())
    counted = Tally(**{verdict: counts[verdict] for verdict in VERDICTS})
    reasons = Counter("no_majority" if given[row] else "no_label" for row, found in majority.items() if found is None)
    shared, unknown = _agreement(sheets, given)
    metrics: Metrics = {
        "rows": len(given),
        "sheets": len(sheets),
        "labels": sum(map(len, given.values())),
        "missing": sum(sheet.missing for sheet in sheets),
        "invalid": sum(sheet.invalid for sheet in sheets),
        "judged": counted.judged,
        **{verdict: counts[verdict] for verdict in VERDICTS},
        **{f"unjudged/{reason}": count for reason, count in sorted(reasons.items())},
        **win_rate(counted, seed),
        **shared,
    }
    return Analysis(metrics=metrics, verdicts=majority, unknown=unknown)


def _majority(labels: Sequence[Verdict]) -> Verdict | None:
    """Return the label that more annotators gave than any other."""
    ranked = Counter(labels).most_common(2)
    return None if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]) else ranked[0][0]


def _agreement(sheets: Sequence[Sheet], given: Mapping[str, Sequence[Verdict]]) -> tuple[Metrics, Mapping[str, str]]:
    shared = [row for row, labels in given.items() if len(labels) > 1]
    if not shared:
        reason = "no row has labels of two annotators"
        return {}, {"agreement": reason, "alpha": reason}
    equal = [first == second for row in shared for first, second in combinations(given[row], 2)]
    metrics: Metrics = {
        "agreement": sum(equal) / len(equal),
        "unanimous": sum(len(set(given[row])) == 1 for row in shared) / len(shared),
    }
    if len({label for row in shared for label in given[row]}) == 1:
        return metrics, {"alpha": "all labels are the same, and what chance would do can't be told"}
    table = [[_VALUES.get(sheet.verdicts.get(row, ""), np.nan) for row in shared] for sheet in sheets]
    return metrics | {f"alpha_{level}": _alpha(table, level) for level in ("nominal", "ordinal")}, {}


def _alpha(table: Sequence[Sequence[float]], level: str) -> float:
    """Return Krippendorff's alpha of labels by annotator and row, NaN where one is missing. Raises UserError."""
    try:
        library: Any = importlib.import_module("krippendorff")
    except ImportError as error:
        raise UserError(
            "Krippendorff's alpha is computed by the package krippendorff, which is not installed: "
            "pip install 'srecycle[human]'"
        ) from error
    return float(library.alpha(reliability_data=np.array(table), level_of_measurement=level))


def agreements(sheets: Sequence[Sheet]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return for each two annotators how many rows both labelled, and on how many of them they agree."""
    found = {}
    for first, second in combinations(sheets, 2):
        both = first.verdicts.keys() & second.verdicts.keys()
        found[first.name, second.name] = len(both), sum(first.verdicts[row] == second.verdicts[row] for row in both)
    return found
