"""The tables of a study that ask a question of their own: optima, repetition, thresholds, and predictions.

`optimum`: is the best level of a factor inside its range? `again`: does a contrast keep its sign under other seeds, and
lies it where the first seeds predict it? `surface`: what do thresholds keep, and how much of it is right? `pilot`: does
the compatibility matrix of a pilot order pairs of teacher and student as their trainings do?
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from srecycle.report.tables import floats
from srecycle.rows import kind_of, own_rows
from srecycle.study import matrix
from srecycle.study.contrasts import Estimate, Resampled, estimate, prediction
from srecycle.study.made import Done
from srecycle.study.outcomes import answers_of, column_of, spread, training
from srecycle.study.tables import NOT_RUN, Asked, Made, asked, label_of, points
from srecycle.verifier.faults import SOUND, fault


def optimum(wanted: Asked) -> Made:
    """Return for each row the level with the highest accuracy, how sure it is, and what it has more than either end."""
    level = str(wanted.spec["level"])
    found = wanted.drawn([*wanted.rows, level])
    levels = wanted.names([level])
    body, values = [], list[Mapping[str, Any]]()
    for row in wanted.names(wanted.rows):
        mine = {one: found[f"{row} | {one}"] for one in levels if f"{row} | {one}" in found}
        if len(mine) < 3:
            body.append([label_of(row), NOT_RUN, "-", "-", "-", "-"])
            continue
        best = _best(mine)
        body.append(
            [
                label_of(row),
                best.level,
                f"{best.again:.0%}",
                f"{best.inside:.0%}",
                f"{best.inner}: {points(best.gain)}",
                points(best.ends),
            ]
        )
        values.append(
            {"row": row, **{name: getattr(best, name) for name in ("level", "again", "inside", "inner")}}
            | {"last_less_first": best.ends.value}
        )
    return Made(
        title=str(wanted.spec["title"]),
        heads=[
            ", ".join(wanted.rows),
            f"best {level}",
            "best again",
            "best is inside",
            "best inside less the better end",
            f"{level} {levels[-1]} less {levels[0]}" if levels else "last less first",
        ],
        rows=body,
        note="Shares of resamples (seeds, bases, items). The best level is picked by the figures that its gain is told "
        "of, so a gain near 0 says nothing. " + str(wanted.spec.get("note", "")),
        values=values,
    )


@dataclass(frozen=True, kw_only=True)
class _Best:
    """The best of some levels, in what share of resamples it is the best `again`, and one that is no end (`inside`).

    `gain` is what the best `inner` one has more than the better end, `ends` what the last has more than the first.
    """

    level: str
    again: float
    inside: float
    inner: str
    gain: Estimate
    ends: Estimate


def _best(levels: Mapping[str, Resampled]) -> _Best:
    names = list(levels)
    value = {name: one.value for name, one in levels.items()}
    drawn = np.stack([one.drawn for one in levels.values()])
    winners = np.nanargmax(drawn[:, ~np.isnan(drawn).any(axis=0)], axis=0)
    best = max(names, key=lambda name: value[name])
    inner, end = (max(some, key=lambda name: value[name]) for some in (names[1:-1], [names[0], names[-1]]))
    return _Best(
        level=best,
        again=float((winners == names.index(best)).mean()),
        inside=float(((winners > 0) & (winners < len(names) - 1)).mean()),
        inner=inner,
        gain=estimate(levels[inner].less(levels[end])),
        ends=estimate(levels[names[-1]].less(levels[names[0]])),
    )


def again(wanted: Asked) -> Made:
    """Return how contrasts fare under other seeds: whether signs stay, and how many cells lie where they should.

    A cell is a setting of `columns` with one base student; from its first seeds follows where the contrast of one more
    seed lies in 95 of 100 cases. `again` names the block of the other seeds; without one, each seed is predicted from
    the others of its cell.
    """
    ours, against = str(wanted.spec["ours"]), [str(one) for one in wanted.spec["against"]]
    other = wanted.spec.get("again")
    first = _accuracies(wanted)
    later = _accuracies(asked(wanted.outcomes, {**wanted.spec, "blocks": [other]})) if other else {}
    heads = [f"{ours} less", "first seeds", "other seeds", "same sign"]
    if not other:
        heads = [f"{ours} less", "all seeds", "left-out seeds with the sign of the rest"]
    body, values = [], list[Mapping[str, Any]]()
    for one in against:
        gaps, new = _gaps(first, ours, one), _gaps(later, ours, one)
        pairs = [
            (values_of, value)
            for cell, by_seed in gaps.items()
            for values_of, value in (
                [(list(by_seed.values()), fresh) for fresh in new.get(cell, {}).values()]
                if other
                else _left_out(by_seed)
            )
        ]
        intervals = [(prediction(known), value) for known, value in pairs]
        inside = [value in interval for interval, value in intervals if interval is not None]
        old = spread([value for by_seed in gaps.values() for value in by_seed.values()])
        fresh = spread([value for _, value in pairs])
        if not inside or old is None or fresh is None:
            body.append([one, NOT_RUN, *["-"] * (len(heads) - 1)])
            continue
        alike = [(value > 0) == (float(np.mean(known)) > 0) for known, value in pairs if known]
        repeated = [f"{100 * fresh[0]:+.1f}", "yes" if (old[0] > 0) == (fresh[0] > 0) else "no"]
        told = repeated if other else [_of(alike)]
        body.append([one, f"{100 * old[0]:+.1f}", *told, _of(inside)])
        share, same = float(np.mean(inside)), float(np.mean(alike))
        values.append(
            {"ours": ours, "other": one, "first": old[0], "inside": share, "cells": len(inside), "same_sign": same}
            | ({"again": fresh[0]} if other else {})
        )
    return Made(
        title=str(wanted.spec["title"]),
        heads=[*heads, "cells inside their 95% prediction interval"],
        rows=body,
        note=str(wanted.spec.get("note", "")),
        values=values,
    )


def _of(found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(found)} ({sum(found) / len(found):.0%})"


def _accuracies(wanted: Asked) -> dict[tuple[str, str, str], dict[str, float]]:
    """Return accuracy by (arm, setting, base) and seed."""
    columns = ["arm", *wanted.columns]
    found = answers_of(wanted.lines, columns)
    table: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in found.runs:
        arm, _, setting = one.column.partition(" | ")
        value = float(one.right[found.places(wanted.splits)].mean())
        table.setdefault((arm, setting, one.base), {})[one.seed] = value
    return table


def _gaps(
    table: Mapping[tuple[str, str, str], Mapping[str, float]], ours: str, other: str
) -> dict[tuple[str, str], dict[str, float]]:
    found = {}
    for (arm, setting, base), by_seed in table.items():
        theirs = table.get((other, setting, base), {})
        if arm == ours and theirs:
            found[setting, base] = {seed: by_seed[seed] - theirs[seed] for seed in by_seed if seed in theirs}
    return found


def _left_out(by_seed: Mapping[str, float]) -> list[tuple[list[float], float]]:
    return [([value for seed, value in by_seed.items() if seed != left], by_seed[left]) for left in by_seed]


def surface(wanted: Asked) -> Made:
    """Return what limits on IFD and r-IFD keep of what an arm took: a share of rows, and of these how many are right.

    Nothing is trained for it. As in the paper, only rows with a reflected response are kept.
    """
    ifd, r_ifd = ([float(one) for one in wanted.spec[name]] for name in ("ifd", "r_ifd"))
    cells: dict[tuple[float, float], list[tuple[float, float]]] = {}
    for line in wanted.lines:
        table = training(line)
        if table is None:
            continue
        own = own_rows(table)
        scores = {name: floats(own[name]) for name in ("ifd", "r_ifd")}
        reflected = np.array([kind_of(one) in ("response", "both") for one in own["version"].to_pylist()])
        texts = zip(own["instruction"].to_pylist(), own["response"].to_pylist(), strict=True)
        right = np.array([fault(instruction, response) == SOUND for instruction, response in texts])
        for above in ifd:
            for other in r_ifd:
                kept = reflected & (scores["ifd"] < above) & (scores["r_ifd"] < other)
                share = float(right[kept].mean()) if kept.any() else math.nan
                cells.setdefault((above, other), []).append((float(kept.mean()), share))
    return Made(
        title=str(wanted.spec["title"]),
        heads=["IFD below", *(f"r-IFD below {other:g}" for other in r_ifd)],
        rows=[[f"{above:g}", *(_kept(cells.get((above, other), [])) for other in r_ifd)] for above in ifd],
        note="Rows kept, and the share of them that is right; means over runs. " + str(wanted.spec.get("note", "")),
    )


def _kept(found: Sequence[tuple[float, float]]) -> str:
    kept, right = (spread([one[place] for one in found]) for place in (0, 1))
    if kept is None:
        return NOT_RUN
    return f"{kept[0]:.0%}, {right[0]:.2f}" if right else f"{kept[0]:.0%}"


def pilot(wanted: Asked) -> Made:
    """Return how the pilot matrix's figures order teachers of each student, against what their trainings came to.

    `trained` names the block of the trainings, `arm` which of its arms; both blocks have the factors `rows` (the
    student) and `level` (the teacher). Told is Spearman's rank correlation: 1 where the orders agree.
    """
    from scipy.stats import spearmanr

    level, arm = str(wanted.spec["level"]), str(wanted.spec["arm"])
    trained = asked(wanted.outcomes, {**wanted.spec, "blocks": [wanted.spec["trained"]], "where": {"arm": [arm]}})
    accuracy = {name: one.value for name, one in trained.drawn([*wanted.rows, level]).items()}
    piloted: dict[str, list[matrix.Line]] = {}
    for line in wanted.lines:
        if line.run:
            figures = matrix.line(Done(setting=cast(Any, None), run=line.run), ())
            piloted.setdefault(column_of(line, [*wanted.rows, level]), []).append(figures)
    body, values = [], list[Mapping[str, Any]]()
    for row in wanted.names(wanted.rows):
        names = [f"{row} | {one}" for one in wanted.names([level])]
        names = [name for name in names if name in accuracy and name in piloted]
        if len(names) < 3:
            body.append([label_of(row), *[NOT_RUN] * len(_PREDICTS)])
            continue
        cells = []
        for figure, sign in _PREDICTS.items():
            known = [spread([one[figure] for one in piloted[name]]) for name in names]
            pairs = [(sign * one[0], accuracy[name]) for name, one in zip(names, known, strict=True) if one]
            rho = float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else math.nan
            cells.append("-" if math.isnan(rho) else f"{rho:+.2f}")
            values.append({"row": row, "figure": figure, "spearman": None if math.isnan(rho) else rho})
        body.append([label_of(row), *cells])
    return Made(
        title=str(wanted.spec["title"]),
        heads=[
            ", ".join(wanted.rows),
            *(f"{'lower' if sign < 0 else 'higher'} {name}" for name, sign in _PREDICTS.items()),
        ],
        rows=body,
        note=str(wanted.spec.get("note", "")),
        values=values,
    )


_PREDICTS: Mapping[str, int] = {
    "rank_surprisal": -1,
    "kept_share": 1,
    "gain/ifd": 1,
    "gain/r_ifd": -1,
    "acceptance/response": 1,
}
"""The matrix's figures, and 1 where more of it is to predict a better student. It ranks by the first."""
