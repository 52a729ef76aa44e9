"""Drawing primitives. A chart is plain data: marks with coordinates, styles and texts, which a template writes as SVG.

Styles are class names of the report's style sheet, so a chart follows the page's theme and holds no colour of its own.
Coordinates are pixels of the chart's own box, rounded, so that equal data gives equal bytes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Anchor = Literal["start", "middle", "end"]

WIDTH = 1120.0
"""The width of every chart, in pixels of its own box; the page scales it."""

_LETTER = 6.9
"""About the width of a letter at the charts' font size."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One SVG element: its tag, style classes, coordinates, the text it shows, and the text shown when pointed at."""

    kind: Literal["rect", "line", "circle", "path", "text"]
    style: str
    geometry: Mapping[str, float | str]
    text: str = ""
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A legend's entry: the style of its swatch, and what it stands for."""

    style: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the colours of a chart, or of one of its parts, stand for."""

    title: str = ""
    keys: Sequence[Key]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: what it shows, how to read it, and its marks. `name` is its anchor in the page."""

    name: str
    title: str
    caption: str
    height: float
    marks: Sequence[Mark]
    legends: Sequence[Legend] = ()
    width: float = WIDTH


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values from `low` to `high` onto pixels from `start` over `length` (negative where the axis points up)."""

    low: float
    high: float
    start: float
    length: float

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * self.length

    def ticks(self, about: int = 4) -> list[float]:
        """Return round values inside the scale, about so many."""
        step = round_step(self.high - self.low, about)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def named(self, value: float, about: int = 4) -> str:
        """Write a tick with as many digits as the step between ticks needs."""
        step = round_step(self.high - self.low, about)
        return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def round_step(extent: float, about: int) -> float:
    """Return the round step (1, 2 or 5 times a power of ten) that cuts an extent into about so many parts."""
    raw = extent / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def scale_over(values: Sequence[float], start: float, length: float, *, margin: float = 0.06) -> Scale:
    """Return a scale that shows all values with some room at both ends, also where they are all the same."""
    low, high = min(values), max(values)
    room = (high - low) * margin or abs(high) * 0.05 or 0.5
    return Scale(low=low - room, high=high + room, start=start, length=length)


def rect(x: float, y: float, width: float, height: float, style: str, *, title: str = "") -> Mark:
    """Return a rectangle."""
    geometry = {"x": _px(x), "y": _px(y), "width": _px(max(width, 0.0)), "height": _px(height)}
    return Mark(kind="rect", style=style, geometry=geometry, title=title)


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Mark:
    """Return a straight line."""
    return Mark(kind="line", style=style, geometry={"x1": _px(x1), "y1": _px(y1), "x2": _px(x2), "y2": _px(y2)})


def dot(x: float, y: float, radius: float, style: str, *, title: str = "") -> Mark:
    """Return a filled circle."""
    return Mark(kind="circle", style=style, geometry={"cx": _px(x), "cy": _px(y), "r": radius}, title=title)


def label(x: float, y: float, text: str, style: str = "label", anchor: Anchor = "start", *, title: str = "") -> Mark:
    """Return a text with its baseline at y."""
    geometry = {"x": _px(x), "y": _px(y), "text-anchor": anchor}
    return Mark(kind="text", style=style, geometry=geometry, text=text, title=title)


def path(points: Sequence["Point"], style: str, *, title: str = "") -> Mark:
    """Return a line through points."""
    steps = "L".join(f"{_px(point.x):g} {_px(point.y):g}" for point in points)
    return Mark(kind="path", style=style, geometry={"d": f"M{steps}"}, title=title)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place in a chart, in pixels."""

    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Gutter:
    """The column of names left of a chart's rows: names are cut to fit, and shown whole when pointed at."""

    names: Sequence[str]
    most: float = 340.0
    width: float = field(init=False)

    def __post_init__(self) -> None:
        """Make the column as wide as its longest name, within limits."""
        longest = max((len(name) for name in self.names), default=0)
        object.__setattr__(self, "width", min(max(longest * _LETTER + 24, 90.0), self.most))

    def name(self, text: str, y: float) -> Mark:
        """Return a row's name, right-aligned to the column's edge."""
        return label(self.width - 14, y, fitted(text, self.width - 20), "label name", "end", title=text)


def fitted(text: str, width: float) -> str:
    """Cut a text to about this many pixels, with an ellipsis where something is missing.

    It is cut in its middle: names of runs begin alike, and end in what sets them apart.
    """
    letters = max(int(width / _LETTER), 1)
    if len(text) <= letters:
        return text
    head = letters // 2
    return f"{text[:head].rstrip()}…{text[len(text) - (letters - head - 1) :].lstrip()}"


def _px(value: float) -> float:
    return round(float(value), 2) + 0.0  # no negative zero
