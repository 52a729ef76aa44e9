"""The report's figures of results: evaluation by run, and what each run's training set is made of.

Pure functions from entries to charts, one row a run. Each returns None where no run has what it shows; a run that
lacks it keeps its row, with a word in place of a value.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srecycle.report.charts import (
    WIDTH,
    Chart,
    Gutter,
    Key,
    Legend,
    Mark,
    Scale,
    dot,
    fitted,
    label,
    line,
    rect,
    scale_over,
)
from srecycle.report.comparison import Entry, best, compared, plain, spoken
from srecycle.rows import KINDS

SERIES = 8
"""How many series the style sheet tells apart; further ones begin again."""

_PANELS_A_ROW = 7
_MOST_PANELS = 21
_VERDICT_OK = "ok"


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


def composition_chart(entries: Sequence[Entry]) -> Chart | None:
    """Return what each run took and kept, by version, and beside it what the kept pairs are worth, where known."""
    if not any(entry.versions("taken") for entry in entries):
        return None
    gutter = Gutter(names=[entry.label for entry in entries], most=220.0)
    named = _verdicts(entries)
    right = 360.0 if named else 0.0
    most = max(sum(entry.versions("taken").values()) for entry in entries)
    rows = Scale(low=0, high=max(most, 1), start=gutter.width, length=WIDTH - gutter.width - right - 40)
    share = Scale(low=0, high=1, start=WIDTH - right, length=right)
    marks = _composition_axes(rows, share if named else None, _HEAD + _TALL * len(entries))
    for place, entry in enumerate(entries):
        y = _HEAD + place * _TALL
        marks.append(gutter.name(entry.label, y + _TALL / 2 + 4))
        marks += [*_version_bars(entry, rows, y), *(_verdict_bar(entry, named, share, y) if named else ())]
    caption = "Of every row the student takes one version (thin bar); the keep filters then refuse some (thick bar)."
    return Chart(
        name="composition",
        title="What the training sets are made of",
        caption=f"{caption} Verdicts are computed from the texts of the kept pairs alone." if named else caption,
        height=_HEAD + _TALL * len(entries) + _FOOT,
        marks=marks,
        legends=_composition_legends(named),
    )


_TALL = 36.0


def _verdicts(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the style of every verdict that occurs: `ok` first, faults by how often they occur."""
    counts = Counter[str]()
    for entry in entries:
        counts.update(entry.verdicts)
    faults = sorted((name for name in counts if name != _VERDICT_OK), key=lambda name: (-counts[name], name))
    fine = {_VERDICT_OK: "verdict-ok"} if _VERDICT_OK in counts else {}
    return fine | {name: f"fault-{place % SERIES}" for place, name in enumerate(faults)}


def _composition_legends(named: Mapping[str, str]) -> list[Legend]:
    versions = Legend(title="versions", keys=[Key(style=f"version-{name}", name=name) for name in KINDS])
    verdicts = Legend(title="verdicts", keys=[Key(style=style, name=spoken(name)) for name, style in named.items()])
    return [versions, verdicts] if named else [versions]


def _composition_axes(rows: Scale, share: Scale | None, bottom: float) -> list[Mark]:
    marks = [label(rows.start, 20, "rows taken and kept, by version", "label heading")]
    for tick in rows.ticks(5):
        marks.append(line(rows(tick), _HEAD, rows(tick), bottom, "grid"))
        marks.append(label(rows(tick), bottom + 15, rows.named(tick, 5), "label tick", "middle"))
    if share is not None:
        marks.append(label(share.start, 20, "verdicts on the kept rows", "label heading"))
        marks.append(label(share(0.0), bottom + 15, "0%", "label tick", "start"))
        marks.append(label(share(0.5), bottom + 15, "50%", "label tick", "middle"))
        marks.append(label(share(1.0), bottom + 15, "100%", "label tick", "end"))
    return marks


def _version_bars(entry: Entry, scale: Scale, y: float) -> list[Mark]:
    """Return a thin bar of what was taken above a thick one of what was kept, or a word for what is missing."""
    taken, kept = entry.versions("taken"), entry.versions("kept")
    if not taken:
        missing = "failed" if entry.failed else "nothing assembled" if entry.tuned else "not tuned"
        return [label(scale.start + 4, y + _TALL / 2 + 4, missing, "label absent")]
    styles: dict[str, str] = {name: f"version-{name}" for name in KINDS}
    thin = _stacked(taken, styles, scale, _Bar(top=y + 5, height=6, said=f"{entry.label}, taken"))
    if not sum(kept.values()):
        return [*thin, label(scale.start + 4, y + 27, "nothing kept", "label absent")]
    return [*thin, *_stacked(kept, styles, scale, _Bar(top=y + 13, height=18, said=f"{entry.label}, kept"))]


def _verdict_bar(entry: Entry, styles: Mapping[str, str], scale: Scale, y: float) -> list[Mark]:
    verdicts = entry.verdicts
    total = sum(verdicts.values())
    if not total:
        return [label(scale.start + 4, y + _TALL / 2 + 4, "failed" if entry.failed else "not judged", "label absent")]
    ordered = {name: verdicts[name] for name in styles if verdicts.get(name)}
    whole = Scale(low=0, high=total, start=scale.start, length=scale.length)
    return _stacked(ordered, styles, whole, _Bar(top=y + 13, height=18, said=f"{entry.label}, kept"))


@dataclass(frozen=True, kw_only=True)
class _Bar:
    top: float
    height: float
    said: str


def _stacked(counts: Mapping[str, int], styles: Mapping[str, str], scale: Scale, bar: _Bar) -> list[Mark]:
    """Return segments end to end, each with its count where it has room for one."""
    marks, before, total = [], 0, sum(counts.values())
    for name, count in counts.items():
        x, width = scale(before), scale(before + count) - scale(before)
        before += count
        if not count:
            continue
        said = f"{bar.said}: {spoken(name)} {count:,} ({count / total:.1%})"
        marks.append(rect(x, bar.top, width - 1, bar.height, f"segment {styles[name]}", title=said))
        if bar.height > 12 and width > 9 * len(f"{count:,}"):
            marks.append(label(x + width / 2, bar.top + bar.height - 5, f"{count:,}", "label on-series", "middle"))
    return marks
