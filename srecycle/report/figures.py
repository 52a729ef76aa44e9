"""The report's figures of results: evaluation by run.

Pure functions from entries to charts, one row a run; a run without a value keeps its row, with a word in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from srecycle.report.charts import (
    WIDTH,
    Chart,
    Gutter,
    Mark,
    dot,
    fitted,
    label,
    line,
    rect,
    scale_over,
)
from srecycle.report.comparison import Entry, best, compared, plain, spoken

SERIES = 8
"""How many series the style sheet tells apart; further ones begin again."""

_PANELS_A_ROW = 7
_MOST_PANELS = 21


def evaluation_charts(entries: Sequence[Entry]) -> list[Chart]:
    """Return one chart an evaluator: a panel a metric that has a standard error, the mean first."""
    names = [name for name in compared(entries) if any(_stderr(entry, name) is not None for entry in entries)]
    evaluators = list(dict.fromkeys(name.partition("/")[0] for name in names))
    return [_evaluation(entries, one, [name for name in names if name.partition("/")[0] == one]) for one in evaluators]


def _stderr(entry: Entry, name: str) -> float | None:
    return entry.figures[name].stderr if name in entry.figures else None


_ROW, _HEAD, _FOOT, _BLOCK_GAP = 26.0, 34.0, 26.0, 18.0


def _evaluation(entries: Sequence[Entry], evaluator: str, names: Sequence[str]) -> Chart:
    gutter = Gutter(names=[entry.label for entry in entries])
    shared, more = _shared_prefix(names), len(names) - _MOST_PANELS
    names = names[:_MOST_PANELS]
    marks: list[Mark] = []
    height = _HEAD + _ROW * len(entries) + _FOOT
    blocks = [names[start : start + _PANELS_A_ROW] for start in range(0, len(names), _PANELS_A_ROW)]
    for place, block in enumerate(blocks):
        top = place * (height + _BLOCK_GAP)
        marks += _stripes(entries, gutter, top + _HEAD)
        left = gutter.width
        for name, width in zip(block, _panel_widths(len(block), WIDTH - gutter.width, place == 0), strict=True):
            short = spoken(name.removeprefix(shared))
            marks += _panel(entries, name, short, _Box(left=left, top=top, width=width))
            left += width
    about = spoken(shared.strip("/")) or spoken(evaluator)
    return Chart(
        name=f"evaluation-{evaluator}",
        title=f"Evaluation: {about}",
        caption="Dots are values, bars one standard error to each side. Every panel has its own axis; the dashed line "
        "carries the first run's value down, to compare with. A ring marks the best finished run."
        + (f" {more} more metrics are not drawn." if more > 0 else ""),
        height=len(blocks) * (height + _BLOCK_GAP) - _BLOCK_GAP,
        marks=marks,
    )


def _shared_prefix(names: Sequence[str]) -> str:
    """Return the leading parts, with their slash, that all names have in common."""
    parts = [name.split("/")[:-1] for name in names]
    shared = 0
    while shared < min(map(len, parts)) and len({part[shared] for part in parts}) == 1:
        shared += 1
    return "".join(f"{part}/" for part in parts[0][:shared])


def _panel_widths(panels: int, width: float, first_is_wide: bool) -> list[float]:
    if panels == 1:
        return [width]
    if not first_is_wide:
        return [width / _PANELS_A_ROW] * panels
    first = max(width * 0.27, width / panels)
    return [first, *[(width - first) / (panels - 1)] * (panels - 1)]


def _stripes(entries: Sequence[Entry], gutter: Gutter, top: float) -> list[Mark]:
    """Return every row's background and name."""
    marks = []
    for place, entry in enumerate(entries):
        y = top + place * _ROW
        if place % 2 == 0:
            marks.append(rect(0, y, WIDTH, _ROW, "stripe"))
        marks.append(gutter.name(entry.label, y + _ROW / 2 + 4))
    return marks


@dataclass(frozen=True, kw_only=True)
class _Box:
    left: float
    top: float
    width: float


def _panel(entries: Sequence[Entry], name: str, title: str, box: _Box) -> list[Mark]:
    """Return one metric's panel: an axis, the first run's guide, and a dot with its error a run."""
    figures = [entry.figures.get(name) for entry in entries]
    ends = [
        figure.value + side * (figure.stderr or 0.0) for figure in figures if figure is not None for side in (-1, 1)
    ]
    scale = scale_over(ends, box.left + 12, box.width - 30)
    top, bottom = box.top + _HEAD, box.top + _HEAD + _ROW * len(entries)
    marks = [label(box.left + 12, box.top + 20, fitted(title, box.width - 16), "label heading", title=title)]
    about = max(3, int(box.width / 55))
    for tick in scale.ticks(about):
        marks.append(line(scale(tick), top, scale(tick), bottom, "grid"))
        marks.append(label(scale(tick), bottom + 15, scale.named(tick, about), "label tick", "middle"))
    if (reference := next((figure for figure in figures if figure is not None), None)) is not None:
        marks.append(line(scale(reference.value), top, scale(reference.value), bottom, "guide"))
    top_value = best(entries, name)
    for place, (entry, figure) in enumerate(zip(entries, figures, strict=True)):
        y = top + (place + 0.5) * _ROW
        if figure is None:
            missing = "failed" if entry.failed else "not measured"
            marks.append(label(box.left + 12, y + 4, missing if box.width > 130 else "-", "label absent"))
            continue
        spread = figure.stderr or 0.0
        marks.append(line(scale(figure.value - spread), y, scale(figure.value + spread), y, "error"))
        if figure.value == top_value and not entry.failed:
            marks.append(dot(scale(figure.value), y, 7.5, "ring"))
        marks.append(dot(scale(figure.value), y, 4, "value", title=f"{entry.label}: {plain(figure)}"))
    return marks
