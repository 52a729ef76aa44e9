"""Heat maps over runs: two swept numbers, and teachers by students.

Pure functions from entries to charts; each returns none where the runs do not span what it shows. Quality is the first
figure of the comparison. What was swept on no grid (at random, by Bayes) is drawn as dots where it was tried.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from srecycle.report.charts import WIDTH, Chart, Gutter, Mark, dot, fitted, label, line, rect, scale_over
from srecycle.report.comparison import Entry, compared, number, spoken
from srecycle.report.runs import brief
from srecycle.report.swept import sides, swept

_HEAD, _ROW, _FOOT, _GAP = 52.0, 30.0, 46.0, 28.0
_MOST_PANELS = 6
_WIDEST = 170.0
_PLOT = 240.0
_FEWEST = 4
"""With fewer settings than this there is no surface."""

_COVERED = 0.5
"""The share of a grid's cells that must have a run: what was drawn at random leaves nearly all of them empty."""

_UNDER_TEXT, _BARE = (0.04, 0.5), (0.05, 1.0)
"""How strong the weakest and the strongest shade are; under text it stays readable on them, in both themes."""


@dataclass(frozen=True, kw_only=True)
class _Spot:
    """A place on the map and what was measured there: the mean of so many runs."""

    across: float | str
    down: float | str
    value: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class _Map:
    """One heat map: what its shade means, how its values are written, and where they stand."""

    title: str
    written: Literal["number", "share"]
    spots: Sequence[_Spot]

    def say(self, value: float) -> str:
        """Write a value."""
        return f"{value:.1%}" if self.written == "share" else number(value)

    def told(self, one: _Spot) -> str:
        """Tell a spot in a sentence."""
        return f"{_word(one.down)}, {_word(one.across)}: {self.say(one.value)}, {_runs(one.runs)}"

    def shaded(self, mark: Mark, value: float, shades: tuple[float, float]) -> Mark:
        """Shade a mark by where a value stands among all of them."""
        values = [one.value for one in self.spots]
        weakest, strongest = shades
        low, high = min(values), max(values)
        share = (value - low) / (high - low) if high > low else 0.0
        opacity = round(weakest + share * (strongest - weakest), 3)
        return replace(mark, geometry={**mark.geometry, "fill-opacity": opacity})


@dataclass(frozen=True, kw_only=True)
class _Box:
    """Where a map stands; the names of its rows take `names` of its width."""

    left: float
    top: float
    width: float
    names: float = 96.0


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """A run, and where it stands on the two axes."""

    entry: Entry
    across: float
    down: float


def surface_chart(found: Sequence[Entry]) -> Chart | None:
    """Return quality and the share of rows kept over the two swept numbers of most values.

    Runs that differ in how else they are set have maps of their own, a line each; seeds are averaged.
    """
    known = [entry for entry in found if not entry.failed]
    numbers = sorted(swept(known, least=2), key=lambda one: -one.distinct)
    if len(numbers) < 2:
        return None
    across, down = numbers[:2]
    tried = [
        _Tried(entry=entry, across=x, down=y)
        for entry, x, y in zip(known, across.values, down.values, strict=True)
        if x is not None and y is not None
    ]
    name, fields = next(iter(compared(known)), None), {across.field, down.field}
    mapped = [one for several in _apart(tried, fields).values() if list(_maps(several, name)) for one in several]
    lines = {side: list(_maps(several, name)) for side, several in sorted(_apart(mapped, fields).items())}
    return _surface(across.field, down.field, lines) if lines else None


def _apart(tried: Sequence[_Tried], fields: Collection[str]) -> dict[str, list[_Tried]]:
    found: dict[str, list[_Tried]] = {}
    for side, one in zip(sides([one.entry for one in tried], fields), tried, strict=True):
        found.setdefault(side, []).append(one)
    return found


def _maps(tried: Sequence[_Tried], name: str | None) -> Iterator[_Map]:
    """Yield the maps of one line, quality first: of each measure that enough settings have, over both numbers."""
    figures = [one.entry.figures.get(name) for one in tried] if name else [None] * len(tried)
    quality = _averaged(tried, [figure.value if figure else None for figure in figures])
    kept = _averaged(tried, [one.entry.kept_share for one in tried])
    if _is_surface(quality):
        yield _Map(title=spoken(name or ""), written="number", spots=quality)
    if _is_surface(kept):
        yield _Map(title="share of rows kept", written="share", spots=kept)


def _is_surface(spots: Sequence[_Spot]) -> bool:
    return len(spots) >= _FEWEST and len({one.across for one in spots}) > 1 and len({one.down for one in spots}) > 1


def _averaged(tried: Sequence[_Tried], values: Sequence[float | None]) -> list[_Spot]:
    cells: dict[tuple[float, float], list[float]] = {}
    for one, value in zip(tried, values, strict=True):
        if value is not None:
            cells.setdefault((one.across, one.down), []).append(value)
    return [
        _Spot(across=x, down=y, value=sum(several) / len(several), runs=len(several))
        for (x, y), several in sorted(cells.items())
    ]


def _surface(across: str, down: str, lines: Mapping[str, Sequence[_Map]]) -> Chart:
    marks: list[Mark] = []
    top, width = 0.0, (WIDTH - _GAP) / 2
    for side, maps in list(lines.items())[:_MOST_PANELS]:
        if side:
            marks.append(label(0, top + 14, fitted(side, WIDTH), "label", title=side))
            top += 24
        for place, one in enumerate(maps):
            marks += _plane(one, across, down, _Box(left=place * (width + _GAP), top=top, width=width))
        top += max(_height(one) for one in maps)
    more = f" {len(lines) - _MOST_PANELS} more combinations are not drawn." if len(lines) > _MOST_PANELS else ""
    return Chart(
        name="surface",
        title=f"By {across} and {down}",
        caption="The stronger the shade, the higher; every map has a scale of its own. Runs that differ in their seeds "
        f"only are averaged.{more}",
        height=top,
        marks=marks,
    )


def _plane(one: _Map, across: str, down: str, box: _Box) -> list[Mark]:
    """Return one map with its title and the names of its axes."""
    top, bottom = box.top + _HEAD, box.top + _height(one) - _FOOT
    left = box.left + box.names
    drawn = _cells if _is_grid(one) else _dots
    return [
        label(box.left, box.top + 14, fitted(one.title, box.width), "label heading", title=one.title),
        label(box.left, top - 12, fitted(down, box.width), "label tick", title=down),
        label(left, bottom + 38, fitted(across, box.width - box.names), "label tick", title=across),
        *drawn(one, replace(box, top=top), bottom),
    ]


def _is_grid(one: _Map) -> bool:
    cells = len({spot.across for spot in one.spots}) * len({spot.down for spot in one.spots})
    return len(one.spots) >= _COVERED * cells


def _height(one: _Map) -> float:
    inner = _ROW * len({spot.down for spot in one.spots}) if _is_grid(one) else _PLOT
    return _HEAD + inner + _FOOT


def _cells(one: _Map, box: _Box, bottom: float) -> list[Mark]:
    """Return a shaded cell for every setting with its value, and the names of columns and rows (lowest at the top)."""
    columns, rows = _order(spot.across for spot in one.spots), _order(spot.down for spot in one.spots)
    width = min((box.width - box.names) / len(columns), _WIDEST)
    left = box.left + box.names
    marks = []
    for spot in one.spots:
        x, y = left + columns.index(spot.across) * width, box.top + rows.index(spot.down) * _ROW
        marks += _cell(one, spot, replace(box, left=x, top=y, width=width))
    for place, column in enumerate(map(_word, columns)):
        at = left + (place + 0.5) * width
        marks.append(label(at, bottom + 18, fitted(column, width), "label tick", "middle", title=column))
    for place, row in enumerate(map(_word, rows)):
        at = box.top + (place + 0.5) * _ROW + 3
        marks.append(label(left - 10, at, fitted(row, box.names - 12), "label tick", "end", title=row))
    return marks


def _order(values: Iterable[float | str]) -> list[float | str]:
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def _cell(one: _Map, spot: _Spot, box: _Box) -> list[Mark]:
    bare = rect(box.left, box.top, box.width - 2, _ROW - 2, "cell", title=one.told(spot))
    cell = one.shaded(bare, spot.value, _UNDER_TEXT)
    if box.width < 44:
        return [cell]
    middle = box.left + box.width / 2 - 1
    text = label(middle, box.top + _ROW / 2 + 3, one.say(spot.value), "label", "middle", title=one.told(spot))
    return [cell, text]


def _dots(one: _Map, box: _Box, bottom: float) -> list[Mark]:
    """Return a shaded dot where each setting was tried."""
    x = scale_over([float(spot.across) for spot in one.spots], box.left + box.names, box.width - box.names - 10)
    y = scale_over([float(spot.down) for spot in one.spots], bottom, box.top - bottom)
    marks = []
    for tick in y.ticks(5):
        marks.append(line(x.start, y(tick), x.start + x.length, y(tick), "grid"))
        marks.append(label(x.start - 10, y(tick) + 4, y.named(tick, 5), "label tick", "end"))
    for tick in x.ticks(5):
        marks.append(label(x(tick), bottom + 18, x.named(tick, 5), "label tick", "middle"))
    for spot in one.spots:
        place = dot(x(float(spot.across)), y(float(spot.down)), 7, "cell tried", title=one.told(spot))
        marks.append(one.shaded(place, spot.value, _BARE))
    return marks


def pairing_chart(found: Sequence[Entry]) -> Chart | None:
    """Return the heat map of quality by teacher and student, where the runs have two of each at least."""
    name = next(iter(compared(found)), None)
    cells: dict[tuple[str, str], list[float]] = {}
    for entry in found:
        if name and name in entry.figures and not entry.failed:
            cells.setdefault((_part(entry, "student"), _part(entry, "teacher")), []).append(entry.figures[name].value)
    students, teachers = (sorted({pair[place] for pair in cells}) for place in (0, 1))
    if name is None or min(len(teachers), len(students)) < 2:
        return None
    spots = [
        _Spot(across=student, down=teacher, value=sum(values) / len(values), runs=len(values))
        for (student, teacher), values in sorted(cells.items())
    ]
    one = _Map(title=spoken(name), written="number", spots=spots)
    names = Gutter(names=teachers).width
    width = names + min((WIDTH - names) / len(students), _WIDEST) * len(students)
    bottom = _ROW * len(teachers)
    return Chart(
        name="pairings",
        title=f"Teachers and students: {spoken(name)}",
        caption="Teachers down, students across: the mean of each pair's runs. The stronger the shade, the higher.",
        height=bottom + 30,
        marks=_cells(one, _Box(left=0, top=0, width=width, names=names), bottom),
    )


def _part(entry: Entry, part: str) -> str:
    """Return which teacher or student a run has: the choice, and what was overridden of it."""
    own = [brief(one) for one in entry.run.overrides if one.startswith(f"{part}.") and ".device=" not in one]
    return " ".join([entry.run.choices.get(part, part), *own])


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
