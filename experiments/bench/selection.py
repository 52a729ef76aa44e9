"""How fast stored scores become a threshold surface: `srecycle-study surface` against a plain loop over rows.

    python experiments/bench/selection.py [--quick] [--json FILE]

A store is filled with the tables that the stages would have written (seeded synthetic texts and likelihoods; some
reflections failed, some versions have no likelihood). Ours is everything that the command does: compose the settings,
find and read the tables, decide, filter, and compare the settings. The baseline is what one would write by hand: one
dictionary a version, read from the same files, and for each setting a loop over the rows with the paper's comparisons.
It does less: no means, no medians, no reasons, no overlap. Both take turns in the same process, and must take and keep
the same in every setting; figures are medians over the rounds. Peak memory is the process's before the first baseline.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.reflection import Reflect
from srecycle.rows import CANDIDATE_SCHEMA, LIKELIHOOD_SCHEMA, ROW_SCHEMA
from srecycle.scorer import LIKELIHOODS
from srecycle.stage import Stage
from srecycle.store import Store, write_table
from srecycle.study.measured import measured
from srecycle.study.surface import Surface, surface
from srecycle.study.sweep import Setting, sweep

LIMITS = [round(0.55 + 0.05 * step, 2) for step in range(10)]
GRID = f"keep.ifd_max.below={','.join(map(str, LIMITS))}"
MARGINS = "selector.instruction.margin=0,0.005,0.01,0.02,0.03,0.04,0.05,0.06,0.08,0.1"
CASES: Mapping[str, tuple[int, tuple[str, ...], float]] = {
    "52000x100_limits": (52_000, (GRID, GRID.replace("ifd", "rifd")), 10.0),
    "52000x100_margins": (52_000, (GRID, MARGINS), 10.0),
    "1000000x1": (1_000_000, (), 60.0),
}
QUICK: Mapping[str, tuple[int, tuple[str, ...], float]] = {**CASES, "1000000x1": (200_000, (), 12.0)}
"""Rows, overrides, and the most seconds that are allowed."""


def main() -> None:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument(
        "--quick", action="store_true", help="a run of less than a minute: fewer rows where one setting"
    )
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print(f"{'case':20}{'rows':>10}{'settings':>10}{'ours':>9}{'limit':>8}{'loop':>9}{'ratio':>8}{'peak memory':>14}")
    figures: dict[str, Any] = {}
    spawn = multiprocessing.get_context("spawn")
    for name, (rows, overrides, limit) in (QUICK if options.quick else CASES).items():
        with tempfile.TemporaryDirectory() as folder, spawn.Pool(1, maxtasksperchild=1) as pool:
            pool.apply(fill, (Path(folder), rows))  # in processes of their own: neither's memory counts as the other's
            rounds = 1 if options.quick or rows > 100_000 else 3
            one = pool.apply(measure, (Path(folder), rows, overrides, rounds))
        ratio = one["ratio"]
        print(
            f"{name:20}{rows:10,}{one['settings']:10}{one['ours']:8.2f}s{limit:7.0f}s{one['loop']:8.1f}s{ratio:7.1f}x"
            f"{one['peak']:10.0f} MiB"
        )
        figures |= {
            f"seconds_{name}": figure(one["ours"], "s", one["loop"], ratio),
            f"share_of_limit_{name}": figure(one["ours"] / limit, "", 1.0, one["ours"] / limit),
            f"peak_memory_{name}": figure(one["peak"], "MiB", one["peak_loop"], one["peak"] / one["peak_loop"]),
        }
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if late := [name for name, one in figures.items() if name.startswith("share_of_limit") and one["value"] > 1]:
        sys.exit(f"above the limit: {', '.join(late)}")


def figure(value: float, unit: str, baseline: float, ratio: float) -> dict[str, Any]:
    """Return one figure as every benchmark writes it."""
    return {"value": round(value, 3), "unit": unit, "baseline": round(baseline, 3), "ratio": round(ratio, 4)}


def given(folder: Path, rows: int, overrides: tuple[str, ...] = ()) -> list[str]:
    """Return the overrides of the study."""
    return [f"data.count={rows}", f"store={folder}", "tracker=none", "evaluator=[none]", *overrides]


def measure(folder: Path, rows: int, overrides: tuple[str, ...], rounds: int) -> dict[str, float]:
    """Compute the surface, then the same by the loop; check that they agree. Returns medians of seconds, and MiB."""
    sweep(given(folder, rows))  # Python and Hydra have been loaded when the clock starts
    ours, looped, peak = [], [], 0.0
    for _ in range(rounds):
        started = time.perf_counter()
        asked = sweep(given(folder, rows, overrides))
        found = surface(asked.axes, asked.settings, measured(asked.settings))
        ours.append(time.perf_counter() - started)
        peak = peak or resident_mebibytes()
        started = time.perf_counter()
        scored = loop_scores(folder)
        told = [loop(scored, setting) for setting in asked.settings]
        looped.append(time.perf_counter() - started)
        check(found, told)
    return {
        "ours": median(ours),
        "loop": median(looped),
        "ratio": median(one / other for one, other in zip(looped, ours, strict=True)),
        "settings": len(asked.settings),
        "peak": peak,
        "peak_loop": resident_mebibytes(),
    }


def check(found: Surface, told: list[dict[str, int]]) -> None:
    """Fail where the surface and the loop differ in any count."""
    for line, counts in zip(found.lines, told, strict=True):
        assert {name: line[name] for name in counts} == counts, f"{line} but the loop counts {counts}"


def loop_scores(folder: Path) -> dict[str, dict[str, tuple[float, float] | None]]:
    """Read what each row's versions score: (IFD, r-IFD), or None where there are no scores."""
    scored: dict[str, dict[str, tuple[float, float] | None]] = {}
    for identifier in pq.read_table(one_file(folder, "source", "rows"), columns=["id"])["id"].to_pylist():
        scored[identifier] = {"original": None}
    for file in sorted(folder.glob("artifacts/reflect_*/*/candidates.parquet")):
        for line in pq.read_table(file, columns=["id", "version", "status"]).to_pylist():
            if line["status"] == "ok":
                scored[line["id"]][line["version"]] = None
    columns = ["id", "version", "status", *LIKELIHOODS[:4]]
    for line in pq.read_table(one_file(folder, "likelihoods", "likelihoods"), columns=columns).to_pylist():
        if line["status"] == "ok" and line["version"] in scored[line["id"]]:
            scored[line["id"]][line["version"]] = (
                math.exp(line["loss_y_given_x"] - line["loss_y"]),
                math.exp(line["loss_x_given_y"] - line["loss_x"]),
            )
    return scored


def loop(scored: dict[str, dict[str, tuple[float, float] | None]], setting: Setting) -> dict[str, int]:
    """Decide and filter row by row."""
    margin = setting.experiment.selector["instruction"].margin  # type: ignore[attr-defined]
    ifd_max = setting.experiment.keep["ifd_max"].below  # type: ignore[attr-defined]
    rifd_max = setting.experiment.keep["rifd_max"].below  # type: ignore[attr-defined]
    counts = dict.fromkeys(("taken/original", "taken/instruction", "taken/response", "taken/both", "kept"), 0)
    for versions in scored.values():
        taken = "original"
        old, new = versions["original"], versions.get("instruction")
        if old and new and new[0] - old[0] > margin:
            taken = "instruction"
        other = "both" if taken == "instruction" else "response"
        old, new = versions[taken], versions.get(other)
        if old and new and new[1] < old[1]:
            taken = other
        counts[f"taken/{taken}"] += 1
        last = versions[taken]
        if last and last[0] < ifd_max and last[1] < rifd_max and taken in ("response", "both"):
            counts["kept"] += 1
    return counts


def one_file(folder: Path, stage: str, name: str) -> Path:
    """Return the only artifact's table."""
    (file,) = folder.glob(f"artifacts/{stage}/*/{name}.parquet")
    return file


def fill(folder: Path, rows: int) -> None:
    """Write the artifacts that everything up to likelihoods would have left."""
    (setting,) = sweep(given(folder, rows)).settings
    plan = replace(setting.experiment, until="likelihoods").plan()
    store = Store(folder)
    ids = [f"{number:016x}" for number in range(rows)]
    for label, stage in plan.items():
        random = np.random.default_rng([7, *label.encode()])
        into, _, _ = store.begin(stage.name, stage.key)
        for name, table in tables(label, stage, ids, random):
            write_table(into / f"{name}.parquet", table)
        store.commit(stage.name, stage.key, stage.payload, {}, {})


def tables(label: str, stage: Stage, ids: list[str], random: np.random.Generator) -> Iterator[tuple[str, pa.Table]]:
    """Yield the tables of a stage."""
    rows = len(ids)
    if label == "source":
        columns = {"id": ids, "position": range(rows), **texts(rows, random), "history": [[]] * rows}
        yield "rows", table(ROW_SCHEMA, columns, rows)
    elif isinstance(stage, Reflect):
        kinds = {"instruction": "original"} if label == "reflect_instruction" else {"response": "original", "both": "x"}
        parts = []
        for version, base in kinds.items():
            status = np.where(random.random(rows) < 0.04, "unparsed", "ok").astype(object)
            empty: dict[str, Any] = {"version": [version] * rows, "base": [base] * rows, "criteria": [[]] * rows}
            columns = {"id": ids, "status": status, "earlier_replies": [[]] * rows, **empty, **texts(rows, random)}
            parts.append(table(CANDIDATE_SCHEMA, columns, rows))
        yield "candidates", pa.concat_tables(parts)
    else:
        yield "likelihoods", pa.concat_tables(likelihoods(ids, random))


def likelihoods(ids: list[str], random: np.random.Generator) -> Iterator[pa.Table]:
    """Yield likelihoods of each kind of version: r-IFD falls with reflected responses; one in fifty has none."""
    rows = len(ids)
    for version, helped in {"original": 0.0, "instruction": 0.05, "response": 0.15, "both": 0.2}.items():
        status = np.where(random.random(rows) < 0.02, "too_long", "ok").astype(object)
        direct = random.gamma(8, 0.25, rows), random.gamma(8, 0.3, rows)
        losses = {
            "loss_y": direct[0],
            "loss_y_given_x": direct[0] - random.normal(0.35, 0.2, rows),
            "loss_x": direct[1],
            "loss_x_given_y": direct[1] - random.normal(0.3 + helped, 0.25, rows),
            "shift_y": random.normal(-0.5, 0.2, rows),
            "rank_y_given_x": random.gamma(3, 4, rows),
        }
        failed = status != "ok"
        columns = {
            **{name: pa.array(values, mask=failed) for name, values in losses.items()},
            "id": ids,
            "version": [version] * rows,
            "status": status,
            "tokens_y": random.integers(20, 300, rows),
            "tokens_x": random.integers(5, 80, rows),
        }
        yield table(LIKELIHOOD_SCHEMA, columns, rows)


WORDS = "".join(chr(97 + number * 7919 % 26) if number % 6 else " " for number in range(100_000))


def texts(rows: int, random: np.random.Generator) -> dict[str, Any]:
    """Return instructions of about 60 letters and responses of about 270, the lengths of Alpaca."""
    made = {}
    for name, mean in (("instruction", 60), ("response", 270)):
        starts = random.integers(0, 90_000, rows).tolist()
        lengths = random.integers(mean // 2, mean * 3 // 2, rows).tolist()
        made[name] = [WORDS[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return made


_EMPTY: Mapping[pa.DataType, Any] = {pa.string(): "", pa.bool_(): False, pa.int64(): 0}


def table(schema: pa.Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Return a table of a schema; columns that aren't given are empty."""
    arrays = [
        pa.array(columns[one.name], type=one.type)
        if one.name in columns
        else pa.nulls(rows, one.type)
        if one.nullable
        else pa.array([_EMPTY[one.type]] * rows, type=one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def resident_mebibytes() -> float:
    """Return this process's peak resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    main()
