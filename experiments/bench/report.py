"""How long a report of many runs takes to write and to open, and how large it is.

The runs are real ones: four (two teachers, two students) are run on the micro-world and then copied, each copy with
limits, figures and artifacts of its own, until there are --runs of them. The baseline, `bare table`, is what a notebook
would give: the same runs read from the same files, and their metrics as one HTML table by pandas. Opening is timed by
the browser itself (headless Chromium, driven by playwright), from navigation to the load event, and to the first frame
after a click that sorts the table; medians over rounds in which both pages take turns. `processor` are seconds of the
processor, which other work on the machine moves less: the writing process's, and the page's main thread's until it was
sorted.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from srecycle.report.html import write_report
from srecycle.report.runs import read_runs

BASES = ("teacher=scripted,scripted_sloppy", "student=testbed_weak,testbed_strong")
LIMITS = [round(0.55 + 0.05 * step, 2) for step in range(10)]
REVERSED = [0.6, 0.7, 0.8, 0.9, 1.0]
OWN = ("assemble", "train", "evaluate")
"""Stages that every copy has an artifact of its own of; the others are shared, as in a sweep of limits."""

MOST_MEGABYTES, MOST_SECONDS = 5.0, 2.0


def main() -> None:
    """Print the figures, and write them where asked; fail where one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a run of less than a minute: fewer rows a run, one round")
    parser.add_argument("--runs", type=int, default=200, help="how many runs (now: %(default)s)")
    parser.add_argument("--keep", type=Path, help="leave the store and both pages in this folder")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        fill(folder / "store", options.runs, rows=60 if options.quick else 400)
        found = measure(folder, rounds=1 if options.quick else 5)
    figures = {name: figure(*values) for name, values in found.items()}
    print(f"{'figure':22}{'report':>10}    {'bare table':>10}       ratio")
    for name, one in figures.items():
        unit = one["unit"]
        print(f"{name:22}{one['value']:10.3f} {unit:3}{one['baseline']:10.3f} {unit:3}{one['ratio']:8.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    limits = {"size": MOST_MEGABYTES, "open_to_load": MOST_SECONDS, "open_to_first_sort": MOST_SECONDS}
    if above := [name for name, most in limits.items() if name in figures and figures[name]["value"] > most]:
        sys.exit(f"above the limit: {', '.join(above)}")


def figure(value: float, baseline: float, unit: str) -> dict[str, Any]:
    """Return one figure as every benchmark writes it; its baseline is the bare table."""
    return {"value": round(value, 4), "unit": unit, "baseline": round(baseline, 4), "ratio": round(value / baseline, 4)}


def measure(folder: Path, rounds: int) -> dict[str, tuple[float, float, str]]:
    """Write both pages and open them: (the report's, the bare table's, the unit) by figure."""
    report, table = folder / "report.html", folder / "table.html"
    written: dict[Path, list[dict[str, float]]] = {report: [], table: []}
    for _ in range(rounds):
        written[report].append(timed(lambda: write_report(read_runs(folder / "store"), report)))
        written[table].append(timed(lambda: write_table(folder / "store", table)))
    found = {name: (*medians(written, name), "s") for name in ("write", "write_processor")}
    found["size"] = (report.stat().st_size / 1e6, table.stat().st_size / 1e6, "MB")
    moments: dict[Path, list[dict[str, float]]] = {report: [], table: []}
    for page, moment in opened([report, table] * max(3, rounds)):
        moments[page].append(moment)
    if moments[report]:
        found |= {
            name: (*medians(moments, name), "s") for name in ("open_to_load", "open_to_first_sort", "open_processor")
        }
    return found


def medians(measured: Mapping[Path, list[dict[str, float]]], name: str) -> list[float]:
    """Return the median of one measure for each page."""
    return [median(one[name] for one in rounds) for rounds in measured.values()]


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that it takes, of the wall and of the processor."""
    started, worked = time.perf_counter(), time.process_time()
    work()
    return {"write": time.perf_counter() - started, "write_processor": time.process_time() - worked}


def write_table(store: Path, path: Path) -> None:
    """Write the baseline: the runs' metrics as one table, with a script that sorts it by its first column."""
    import pandas as pd

    lines = [{"run": run.name, **run.metrics} for run in read_runs(store)]
    script = (
        "<script>const sort = () => { const body = document.querySelector('tbody');"
        "body.append(...[...body.rows].sort((a, b) => a.cells[1].textContent < b.cells[1].textContent ? 1 : -1)); };"
        "document.querySelector('thead').addEventListener('click', sort);</script>"
    )
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{pd.DataFrame(lines).to_html()}{script}", encoding="utf-8")


OPENED = """async () => {
  const load = performance.getEntriesByType("navigation")[0].loadEventEnd;
  const frame = () => new Promise(requestAnimationFrame);
  (document.querySelector("table.compared th:nth-child(2) button") ?? document.querySelector("thead")).click();
  await frame(); await frame();
  return { open_to_load: load / 1000, open_to_first_sort: performance.now() / 1000 };
}"""
"""The page's clock begins with the navigation."""


def opened(pages: list[Path]) -> Iterator[tuple[Path, dict[str, float]]]:
    """Open pages one after the other, each in a fresh window, and yield when they were loaded and then sorted."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        print("no Chromium, or no playwright to drive it: nothing is opened")
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for path in pages:
            context = browser.new_context(viewport={"width": 1366, "height": 768})
            page = context.new_page()
            tools = context.new_cdp_session(page)
            tools.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(path.resolve().as_uri(), wait_until="load")
            moment = page.evaluate(OPENED)
            metrics = {one["name"]: one["value"] for one in tools.send("Performance.getMetrics")["metrics"]}
            yield path, {**moment, "open_processor": metrics["TaskDuration"]}
            context.close()
        browser.close()


def fill(store: Path, runs: int, rows: int) -> None:
    """Run four small experiments, and copy them until there are so many runs."""
    small = (f"data.count={rows}", "trainer.max_steps=20", "evaluator.testbed.items=20", "tracker=none", "group=bench")
    subprocess.run(
        [sys.executable, "-m", "srecycle", "-m", *BASES, *small, "scorer.token_losses=true", f"store={store}"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    bases = [json.loads(file.read_text()) for file in sorted((store / "runs").glob("*/run.json"))]
    for number in range(len(bases), runs):
        copy(store, bases[number % len(bases)], number // len(bases))


def copy(store: Path, base: Mapping[str, Any], number: int) -> None:
    """Write a run like this one, with limits, seed, figures and artifacts of its own."""
    chance = random.Random(number)
    own = {
        "keep.ifd_max.below": LIMITS[number % 10],
        "keep.rifd_max.below": REVERSED[number // 10 % 5],
        "trainer.seed": number // 50,
    }
    run = json.loads(json.dumps(base))
    run["id"] = f"{base['id'][:-4]}{number:04x}"
    run["overrides"] = [*base["overrides"], *(f"{name}={value}" for name, value in own.items() if value)]
    run["config"]["keep"]["ifd_max"]["below"] = own["keep.ifd_max.below"]
    run["config"]["keep"]["rifd_max"]["below"] = own["keep.rifd_max.below"]
    run["config"]["trainer"]["seed"] = own["trainer.seed"]
    for name, value in run["metrics"].items():
        if isinstance(value, float):
            run["metrics"][name] = value * chance.uniform(0.8, 1.2)
    for stage in run["stages"]:
        if stage["stage"] in OWN:
            key = f"{number:08x}{stage['key'][8:]}"
            source = store / "artifacts" / stage["stage"] / stage["key"]
            kept = shutil.ignore_patterns("adapter", "*.safetensors")
            shutil.copytree(source, source.with_name(key), ignore=kept)
            stage["key"] = key
    folder = store / "runs" / run["id"]
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(run))


if __name__ == "__main__":
    main()
