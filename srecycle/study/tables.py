"""The tables of a study, as `[[tables]]` in its plan asks for them, from its outcomes.

    [[tables]]
    kind = "accuracy"             # accuracy, contrasts, metrics, auc; optimum, again, surface, pilot (see claims)
    title = "Held-out accuracy"
    blocks = ["crossed"]          # whose runs
    rows = ["arm"]                # factors (or arm, block, round) whose values make the rows, and the columns
    columns = ["student", "teacher"]
    where = {student = ["weak"]}  # fewer runs
    splits = "mean"               # or "in domain", "out of distribution", or a split
    figure = "NAME"               # draw it as NAME.svg

Uncertainty is that of srecycle/study/contrasts: seeds, base students and items. A cell without a finished run says so.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from srecycle.errors import UserError
from srecycle.report.charts import Chart
from srecycle.study.auc import JUDGED, Seen, aucs
from srecycle.study.contrasts import Estimate, Resampled, estimate, holm, mean, resampled
from srecycle.study.outcomes import Line, Outcomes, answers_of, column_of, scored_versions, share_with, spread
from srecycle.study.result_charts import Bar, forest_chart, levels_chart

NOT_RUN = "not run yet"
NAMES: Mapping[str, str] = {"ifd": "IFD", "r_ifd": "r-IFD", "s_ifd": "S-IFD"}
"""How scores, and limits on them, are called in tables; others by their own names."""

Spec = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A table: its heads over its rows, a note, what is behind it as plain values, and its figure."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    values: Sequence[Mapping[str, Any]] = ()
    chart: Chart | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a table is asked for, and the lines that it is made of."""

    spec: Spec
    outcomes: Outcomes
    lines: Sequence[Line]
    rows: Sequence[str]
    columns: Sequence[str]

    @property
    def splits(self) -> str:
        """Which splits of the test count."""
        return str(self.spec.get("splits", "mean"))

    def names(self, factors: Sequence[str]) -> list[str]:
        """Return the values of some factors, in the plan's order."""
        return list(dict.fromkeys(column_of(line, factors) for line in self.lines))

    def drawn(self, columns: Sequence[str]) -> dict[str, Resampled]:
        """Return the resampled accuracy of every value of these factors."""
        found = answers_of(self.lines, columns)
        return resampled(found.runs, found.places(self.splits)) if found.runs else {}


def asked(outcomes: Outcomes, spec: Spec) -> Asked:
    """Read what a table is asked for. Raises UserError where it names a block that the study doesn't have."""
    blocks = spec.get("blocks", [])
    if (unknown := sorted(set(blocks) - blocks_of(outcomes))) and not outcomes.plan.small:
        raise UserError(f"the table {spec.get('title')} is of the block {unknown[0]}, which the study doesn't have")
    wanted = {name: [str(one) for one in values] for name, values in spec.get("where", {}).items()}
    lines = outcomes.where(block=blocks, **wanted)
    return Asked(
        spec=spec, outcomes=outcomes, lines=lines, rows=spec.get("rows", ["arm"]), columns=spec.get("columns", [])
    )


def blocks_of(outcomes: Outcomes) -> set[str]:
    """Return the blocks of a study: --small may leave some out."""
    return {cell.block for cell in outcomes.plan.cells}


def accuracy(wanted: Asked) -> Made:
    """Return mean accuracy by rows and columns, each with half the width of its interval."""
    rows, columns = wanted.names(wanted.rows), wanted.names(wanted.columns)
    found = wanted.drawn([*wanted.rows, *wanted.columns])
    estimates = {name: estimate(one) for name, one in found.items()}
    cells = {(row, column): _joined(row, column, wanted) for row in rows for column in columns}
    chart = None
    if (name := wanted.spec.get("figure")) and estimates:
        series = {
            label_of(column) or "accuracy": {
                row: estimates[cells[row, column]] for row in rows if cells[row, column] in estimates
            }
            for column in columns
        }
        told_by = _head(wanted.columns)
        chart = levels_chart(name, str(wanted.spec["title"]), _head(wanted.rows), series, told_by=told_by)
    return Made(
        title=str(wanted.spec["title"]),
        heads=[_head(wanted.rows), *(label_of(column) or "accuracy" for column in columns)],
        rows=[[label_of(row), *(_percent(estimates.get(cells[row, column])) for column in columns)] for row in rows],
        note=str(wanted.spec.get("note", "")),
        values=[{"cell": name, **_plain(one)} for name, one in estimates.items()],
        chart=chart,
    )


def _joined(row: str, column: str, wanted: Asked) -> str:
    return " | ".join([*([row] if wanted.rows else []), *([column] if wanted.columns else [])])


def contrasts(wanted: Asked) -> Made:
    """Return what an arm has more than others, in points: in every setting, and pooled with Holm's correction."""
    ours, against = str(wanted.spec["ours"]), [str(one) for one in wanted.spec["against"]]
    settings, levels = wanted.names(wanted.columns), wanted.names(wanted.spec.get("rows", []))
    found = wanted.drawn(["arm", *wanted.spec.get("rows", []), *wanted.columns])
    pairs: dict[str, dict[str, Resampled]] = {}
    for other, level in itertools.product(against, levels):
        both = {one: [found.get(_column(arm, level, one)) for arm in (ours, other)] for one in settings}
        pairs[_column(other, level)] = {name: one.less(two) for name, (one, two) in both.items() if one and two}
    pooled = {name: estimate(mean(list(one.values()))) for name, one in pairs.items() if one}
    corrected = holm({name: one.p for name, one in pooled.items()})
    rows = [
        [
            label_of(name),
            *(points(estimate(one[setting]) if setting in one else None) for setting in settings),
            *([points(pooled.get(name))] if len(settings) > 1 else []),
            _p(corrected.get(name)),
        ]
        for name, one in pairs.items()
    ]
    bars = [Bar(name=label_of(other), estimate=one, clear=corrected[other] < 0.05) for other, one in pooled.items()]
    figure = wanted.spec.get("figure")
    return Made(
        title=str(wanted.spec["title"]),
        heads=[
            f"{ours} less",
            *(label_of(one) or "all" for one in settings),
            *(["all"] if len(settings) > 1 else []),
            "p (Holm)",
        ],
        rows=rows,
        note=str(wanted.spec.get("note", "")),
        values=[
            {"ours": ours, "other": other, "holm": corrected[other], **_plain(one)} for other, one in pooled.items()
        ],
        chart=forest_chart(str(figure), str(wanted.spec["title"]), bars) if figure and bars else None,
    )


def _column(*parts: str) -> str:
    return " | ".join(part for part in parts if part)


def metrics(wanted: Asked) -> Made:
    """Return metrics by rows and columns: means and standard deviations over seeds and bases.

    `phrase/NAME/offered|kept|written` is the share of texts that hold the plan's phrase NAME.
    """
    rows, columns = wanted.names(wanted.rows), wanted.names(wanted.columns)
    named: Mapping[str, str] = wanted.spec["metrics"]
    heads = [_told(column, name, columns, named) for column in columns for name in named]
    body = []
    for row in rows:
        cells = []
        for column in columns:
            mine = [
                line
                for line in wanted.lines
                if column_of(line, wanted.rows) == row and column_of(line, wanted.columns) == column
            ]
            known = [line for line in mine if line.run]
            cells += [
                _mean([_value(line, metric, wanted) for line in known]) if known else NOT_RUN
                for metric in named.values()
            ]
        body.append([label_of(row), *cells])
    return Made(
        title=str(wanted.spec["title"]),
        heads=[_head(wanted.rows), *heads],
        rows=body,
        note=str(wanted.spec.get("note", "")),
    )


def _told(column: str, name: str, columns: Sequence[str], named: Mapping[str, str]) -> str:
    if len(columns) == 1 and not column:
        return name
    return f"{label_of(column)}: {name}" if len(named) > 1 else label_of(column)


def _value(line: Line, metric: str, wanted: Asked) -> float | None:
    if metric.startswith("phrase/"):
        _, name, where = metric.split("/")
        return share_with(line, wanted.outcomes.plan.phrases[name], where)
    return line.metric(metric)


def seen(wanted: Asked) -> Made:
    """Return the AUC of every score for every fault, the mean over runs with the lowest and the highest."""
    group = str(wanted.spec.get("group", "rewrites"))
    found: dict[tuple[str, str], list[Seen]] = {}
    read: set[str] = set()
    for line in wanted.lines:
        key = next((str(one["key"]) for one in line.run.stages if one["label"] == "scores"), "") if line.run else ""
        scored = scored_versions(line) if key and key not in read else None
        read.add(key)
        for place, one in (aucs(scored, group) if scored is not None else {}).items():
            found.setdefault(place, []).append(one)
    faults = sorted({fault for _, fault in found})
    counts = {fault: sum(one.faulty for one in found[next(iter(JUDGED)), fault]) for fault in faults}
    return Made(
        title=str(wanted.spec["title"]),
        heads=["score", *(f"{fault.replace('_', ' ')} ({counts[fault]:,})" for fault in faults)],
        rows=[
            [NAMES.get(score, score.replace("_", "-")), *(_auc(found.get((score, fault), [])) for fault in faults)]
            for score in JUDGED
        ]
        if faults
        else [[NOT_RUN]],
        note=str(wanted.spec.get("note", "")),
        values=[
            {"score": score, "fault": fault, "auc": [round(one.auc, 4) for one in runs], "faulty": counts[fault]}
            for (score, fault), runs in sorted(found.items())
        ],
    )


def _auc(runs: Sequence[Seen]) -> str:
    if not runs:
        return "-"
    values = [one.auc for one in runs]
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.2f}{ends}"


def _head(names: Sequence[str]) -> str:
    return ", ".join(NAMES.get(name, name) for name in names)


def label_of(column: str) -> str:
    """Write the name of a row or column: its values, without those that it doesn't have."""
    return ", ".join(part for part in column.split(" | ") if part)


def _percent(one: Estimate | None) -> str:
    return f"{one.value:.3f} ± {one.high - one.value:.3f}" if one else NOT_RUN


def points(one: Estimate | None) -> str:
    """Write an estimate in points of accuracy with its interval."""
    if one is None:
        return NOT_RUN
    return f"{100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _mean(values: Sequence[float | None]) -> str:
    found = spread(values)
    if found is None:
        return "-"
    middle, around = found
    digits = 0 if abs(middle) >= 100 else 1 if abs(middle) >= 10 else 3
    return f"{middle:,.{digits}f}" + ("" if math.isnan(around) else f" ± {around:,.{digits}f}")


def _plain(one: Estimate) -> Mapping[str, Any]:
    return {name: round(value, 6) for name, value in asdict(one).items()}
