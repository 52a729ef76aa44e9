"""Print the demo's study as Markdown: held-out accuracy by arm, student and teacher, over seeds.

    python experiments/demo/table.py STORE

Reads the runs that `srecycle -m experiment=demo/... seed=... student=... teacher=...` left in a store; of equal runs
the last counts. Spreads are standard deviations over seeds (data, teacher, selection, training; base students and
test items are the same), so they understate the whole uncertainty.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from srecycle.report.runs import Run, read_runs

ARMS = ("untuned", "original", "all refined", "random", "perplexity", "selective")
ACCURACY = "evaluate/testbed/accuracy/mean"
Cell = tuple[str, str, str]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    runs = [run for run in read_runs(parser.parse_args().store) if run.status == "finished"]
    cells: dict[Cell, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        cells[run.choices["student"], run.choices["teacher"], run.name][_seed(run)] = run
    settings = sorted({(student, teacher) for student, teacher, _ in cells}, key=lambda pair: (pair[0][::-1], pair[1]))
    print("| arm | " + " | ".join(f"{student}, {teacher}" for student, teacher in settings) + " |")
    print("|---|" + "---|" * len(settings))
    for arm in ARMS:
        print(f"| {arm} | " + " | ".join(_accuracy(cells[(*setting, arm)].values()) for setting in settings) + " |")
    print("\nRows kept, and the share of them that is clean:\n")
    print("| arm | " + " | ".join(f"{student}, {teacher}" for student, teacher in settings) + " |")
    print("|---|" + "---|" * len(settings))
    for arm in ARMS[1:]:
        print(f"| {arm} | " + " | ".join(_kept(cells[(*setting, arm)].values()) for setting in settings) + " |")
    print("\nSelective less the other arm, seed by seed (points of accuracy):\n")
    print("| against | " + " | ".join(f"{student}, {teacher}" for student, teacher in settings) + " |")
    print("|---|" + "---|" * len(settings))
    for arm in ARMS[1:-1]:
        row = [_contrast(cells[(*setting, "selective")], cells[(*setting, arm)]) for setting in settings]
        print(f"| {arm} | " + " | ".join(row) + " |")


def _seed(run: Run) -> str:
    return next((item.removeprefix("seed=") for item in run.overrides if item.startswith("seed=")), "0")


def _accuracy(runs: Iterable[Run]) -> str:
    values = [float(run.metrics[ACCURACY]) for run in runs]
    if not values:
        return "-"
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _kept(runs: Iterable[Run]) -> str:
    runs = list(runs)
    if not runs:
        return "-"
    kept = mean(run.metrics["assemble/kept"] for run in runs)
    return f"{kept:.0f}, {mean(run.metrics['evaluate/testbed/clean_share'] for run in runs):.2f}"


def _contrast(ours: dict[str, Run], theirs: dict[str, Run]) -> str:
    shared = sorted(ours.keys() & theirs.keys())
    gaps = [100 * (ours[seed].metrics[ACCURACY] - theirs[seed].metrics[ACCURACY]) for seed in shared]
    return f"{mean(gaps):+.1f} ({', '.join(f'{gap:+.1f}' for gap in gaps)})" if gaps else "-"


if __name__ == "__main__":
    main()
