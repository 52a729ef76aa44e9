"""A dashboard over runs as data: sections of panels, each over names that the runs have logged. Pure.

In: what was logged (`srecycle.tracker.logged`). Out: a `Dashboard`, which `srecycle.tracker.workspace` turns into a W&B
workspace and a W&B report, and which `--dry-run` prints. A panel whose names nobody has logged is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from srecycle.errors import UserError
from srecycle.tracker.labels import PAIRED, RESULTS
from srecycle.tracker.logged import Logged

Where = Literal["config", "summary", "history", "table"]
Kind = Literal["bars", "scatter", "lines", "parallel", "importance", "differences", "rows", "pairs"]

ARM = "arm"
_MOST_BARS = 8
_MOST_AXES = 10


@dataclass(frozen=True, kw_only=True)
class Key:
    """One logged name, and where W&B has it."""

    where: Where
    name: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel. `x` is its horizontal axis, `y` what it shows, `by` what bars are averaged over."""

    kind: Kind
    title: str
    y: tuple[Key, ...] = ()
    x: Key | None = None
    by: Key | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every name that the panel needs."""
        return (*self.y, *(one for one in (self.x, self.by) if one))


@dataclass(frozen=True, kw_only=True)
class Section:
    """Panels under a heading, and a sentence that says how to read them."""

    title: str
    text: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """What is shown of the runs of a group, or of all; `metric` is the figure that they are compared by."""

    title: str
    metric: str
    group: str | None
    sections: tuple[Section, ...]

    @property
    def keys(self) -> set[Key]:
        """Every name that some panel needs."""
        return {key for section in self.sections for panel in section.panels for key in panel.keys}


def dashboard(found: Logged, *, group: str | None = None, metric: str | None = None) -> Dashboard:
    """Lay the dashboard out. Raises UserError where there is nothing to compare by, or `metric` was never logged."""
    chosen = _metric(found, metric)
    value = Key(where="summary", name=chosen)
    sections = (
        Section(
            title="Results",
            text=f"Runs are compared by {chosen}; below it, what else was measured and which settings differ.",
            panels=tuple(_results(found, value)),
        ),
        Section(
            title="Thresholds",
            text="Each point is a run, the line a running mean. Few rows kept and a high figure is what one looks for.",
            panels=tuple(_thresholds(found, value)),
        ),
        Section(
            title="Teachers and students",
            text="The mean of the runs of each pair; a stronger teacher is not always the better one.",
            panels=tuple(_pairs(found, value)),
        ),
        Section(
            title="Composition",
            text="What the student took of each row, what the filters let stand, and why they refused the rest.",
            panels=tuple(_composition(found)),
        ),
        Section(
            title="Scores",
            text="IFD and r-IFD of the originals (before) and of what is trained on (after); 1 is the paper's limit.",
            panels=tuple(_scores(found)),
        ),
        Section(
            title="Training",
            text="Curves over optimiser steps.",
            panels=tuple(_curves(found)),
        ),
        Section(
            title="Cost",
            text="What the replies that a run rests on cost in dollars, whoever paid, and how fast models were read.",
            panels=tuple(_cost(found, value)),
        ),
        Section(
            title="Rows",
            text="Sampled decisions with their texts, scores and flip distances; judged answers.",
            panels=tuple(_rows(found)),
        ),
    )
    return Dashboard(
        title=f"Selective reflection: {group}" if group else "Selective reflection",
        metric=chosen,
        group=group,
        sections=tuple(one for one in sections if one.panels),
    )


def _metric(found: Logged, asked: str | None) -> str:
    if asked is not None:
        if asked not in found.summary:
            known = ", ".join((*found.figures, "assemble/kept")[:_MOST_BARS])
            raise UserError(f"no run has logged {asked}: --metric takes one of their numbers, such as {known}")
        return asked
    means = [name for name in found.figures if name.endswith("/mean")]
    chosen = next(iter([*means, *found.figures, *(name for name in found.summary if name == "assemble/kept")]), None)
    if chosen is None:
        raise UserError("no run has evaluated anything or assembled a training set: choose a number with --metric NAME")
    return chosen


def _summary(found: Logged, names: Sequence[str]) -> tuple[Key, ...]:
    return tuple(Key(where="summary", name=name) for name in names if name in found.summary)


def _under(found: Logged, prefix: str) -> tuple[Key, ...]:
    """Return the counts that stand right under a prefix."""
    return _summary(found, [name for name in found.summary if name.rpartition("/")[0] == prefix])


def _config(names: Sequence[str]) -> tuple[Key, ...]:
    return tuple(Key(where="config", name=name) for name in names)


def _results(found: Logged, value: Key) -> Iterator[Panel]:
    yield Panel(kind="bars", title=value.name, y=(value,))
    if len(found.config.get(ARM, ())) > 1:
        yield Panel(kind="bars", title=f"{value.name} by arm", y=(value,), by=Key(where="config", name=ARM))
    others = [name for name in found.figures if name != value.name][:_MOST_BARS]
    if others:
        yield Panel(kind="bars", title="Other figures", y=_summary(found, others))
    swept = [*found.swept("choice/"), *found.swept("threshold/"), *found.swept("seed/")]
    if swept:
        axes = _config(swept[:_MOST_AXES])
        kept = _summary(found, ["assemble/kept_share"])
        yield Panel(kind="parallel", title="Settings and what came of them", y=(*axes, *kept, value))
        yield Panel(kind="importance", title="Which settings matter", y=(value,))
    yield Panel(kind="differences", title="What differs between runs")


def _thresholds(found: Logged, value: Key) -> Iterator[Panel]:
    for axis in _config(found.swept("threshold/")):
        setting = axis.name.removeprefix("threshold/").replace("/", ".")
        yield Panel(kind="scatter", title=f"{value.name} by {setting}", x=axis, y=(value,))
        if kept := _summary(found, ["assemble/kept"]):
            yield Panel(kind="scatter", title=f"Rows kept by {setting}", x=axis, y=kept)
    if kept := _summary(found, ["assemble/kept"]):
        yield Panel(kind="scatter", title=f"{value.name} by rows kept", x=kept[0], y=(value,))


def _pairs(found: Logged, value: Key) -> Iterator[Panel]:
    parts = _config([f"pair/{part}" for part in PAIRED])
    if "results" in found.tables and value.name in found.figures:
        columns = tuple(Key(where="table", name=name) for name in RESULTS)
        yield Panel(kind="pairs", title=f"Teachers and students: {value.name}", y=columns)
    for part in parts:
        yield Panel(kind="bars", title=f"{value.name} by {part.name.removeprefix('pair/')}", y=(value,), by=part)
    taken = _summary(found, [f"select_{phase}/acceptance" for phase in ("instruction", "response")])
    yield Panel(kind="parallel", title="Who teaches whom", y=(*parts, *taken, value))


def _composition(found: Logged) -> Iterator[Panel]:
    shown = {
        "What the student took": _under(found, "assemble/taken"),
        "What is trained on": _under(found, "assemble/kept"),
        "Why rows were refused": _under(found, "assemble/refused"),
        "Why rewrites of instructions were taken or not": _under(found, "select_instruction/reason"),
        "Why rewrites of responses were taken or not": _under(found, "select_response/reason"),
    }
    for title, counts in shown.items():
        if counts:
            yield Panel(kind="bars", title=title, y=counts)


def _scores(found: Logged) -> Iterator[Panel]:
    for name, title in (("ifd", "IFD"), ("r_ifd", "r-IFD")):
        for what, said in (("median", "median"), ("above_one_share", "share above 1")):
            if keys := _summary(found, [f"{name}/{when}/{what}" for when in ("before", "after")]):
                yield Panel(kind="bars", title=f"{title}, {said}", y=keys)


def _curves(found: Logged) -> Iterator[Panel]:
    for name in ("loss", "learning_rate", "grad_norm"):
        for curve in (one for one in found.curves if one.rpartition("/")[2] == name):
            axis = Key(where="history", name=f"{curve.rpartition('/')[0]}/step")
            yield Panel(kind="lines", title=curve, x=axis, y=(Key(where="history", name=curve),))


def _cost(found: Logged, value: Key) -> Iterator[Panel]:
    for cost in _summary(found, ["cost/usd"]):
        yield Panel(kind="scatter", title=f"{value.name} by dollars", x=cost, y=(value,))
    if paid := _summary(found, ["cost/usd", "cost/usd_paid", "cost/usd_judged", "cost/usd_per_taken"]):
        yield Panel(kind="bars", title="Dollars", y=paid)
    speeds = [name for name in found.summary if name.endswith("/tokens_per_second")]
    if speeds:
        yield Panel(kind="bars", title="Tokens per second", y=_summary(found, speeds))


def _rows(found: Logged) -> Iterator[Panel]:
    for name in found.tables:
        yield Panel(kind="rows", title=name, y=(Key(where="table", name=name),))


def plain(one: Any) -> Any:
    """Return a part of a dashboard as JSON has it."""
    if isinstance(one, Key):
        return f"{one.where}:{one.name}"
    if isinstance(one, tuple):
        return [plain(item) for item in one]
    if hasattr(one, "__dataclass_fields__"):
        told = {name: plain(getattr(one, name)) for name in one.__dataclass_fields__}
        return {name: value for name, value in told.items() if value not in (None, [])}
    return one
