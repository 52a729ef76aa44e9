"""The report's figures of training sets: what the student took of every row, and what became of it.

Pure functions from entries to charts, one row a run. Each returns None where no run has what it shows; a run that
lacks it keeps its row, with a word in place of a value.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srecycle.report.charts import WIDTH, Chart, Gutter, Key, Legend, Mark, Scale, label, line, rect
from srecycle.report.comparison import Entry, spoken
from srecycle.report.figures import SERIES
from srecycle.rows import KINDS

_VERDICT_OK = "ok"
_HEAD, _FOOT, _TALL = 34.0, 26.0, 36.0


def composition_chart(entries: Sequence[Entry]) -> Chart | None:
    """Return what each run took and kept, by version, and beside it what the kept pairs are worth, where known."""
    if not any(entry.versions("taken") for entry in entries):
        return None
    gutter = Gutter(names=[entry.label for entry in entries])
    named = _verdicts(entries)
    right = 330.0 if named else 0.0
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
        return [label(scale.start + 4, y + _TALL / 2 + 4, _nothing(entry), "label absent")]
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


_REFUSED = "assemble/refused/"
_LOW = 25.0


def outcomes_chart(entries: Sequence[Entry]) -> Chart | None:
    """Return what became of each run's rows: the share kept to train on, and the shares refused, by reason."""
    found = [_outcomes(entry) for entry in entries]
    styles = _reasons(found)
    if len(styles) < 2:
        return None
    gutter = Gutter(names=[entry.label for entry in entries])
    marks = []
    for place, (entry, counts) in enumerate(zip(entries, found, strict=True)):
        y = place * _LOW
        marks.append(gutter.name(entry.label, y + _LOW / 2 + 4))
        whole = Scale(low=0, high=max(sum(counts.values()), 1), start=gutter.width, length=WIDTH - gutter.width)
        ordered = {name: counts[name] for name in styles if counts.get(name)}
        if ordered:
            marks += _stacked(ordered, styles, whole, _Bar(top=y + 3, height=18, said=entry.label))
        else:
            marks.append(label(whole.start + 4, y + _LOW / 2 + 4, _nothing(entry), "label absent"))
    return Chart(
        name="outcomes",
        title="What became of the rows",
        caption="Rows that are kept to train on, and rows that the keep filters refused, by the first reason; each bar "
        "is all of a run's rows.",
        height=_LOW * len(entries),
        marks=marks,
        legends=[Legend(keys=[Key(style=style, name=spoken(name)) for name, style in styles.items()])],
    )


def _outcomes(entry: Entry) -> dict[str, int]:
    """Count a run's rows by what became of them: `kept`, or the reason why not. Empty where there are none."""
    if entry.kept is None:
        return {}
    refused = {name.removeprefix(_REFUSED) for name in entry.run.metrics if name.startswith(_REFUSED)}
    counts = {name: entry.count(_REFUSED + name) or 0 for name in sorted(refused)}
    return {"kept": entry.kept, **counts}


def _reasons(found: Sequence[Mapping[str, int]]) -> dict[str, str]:
    """Return the style of every outcome: `kept` first, reasons by how often they occur."""
    counts = Counter[str]()
    for one in found:
        counts.update({name: count for name, count in one.items() if name != "kept"})
    reasons = sorted(counts, key=lambda name: (-counts[name], name))
    return {"kept": "verdict-ok"} | {name: f"fault-{place % SERIES}" for place, name in enumerate(reasons)}


def _nothing(entry: Entry) -> str:
    return "failed" if entry.failed else "nothing assembled" if entry.tuned else "not tuned"


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
