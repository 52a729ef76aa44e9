"""How memory and time grow with rows: source, score, select and assemble of a file, one stage after the other.

    python experiments/bench/scale.py [--rows 10000 100000 1000000] [--reflect] [--json FILE]

The file is JSON Lines (or parquet, with --parquet) of the micro-world's originals; the student a random Llama of one
narrow layer, so that what is measured is the harness and not the model. Each stage is a process of its own: its time
counts without the start, its memory is the most that was resident at once. The baseline is the smallest size: growth is
linear where seconds a row stay what they are there, and memory is bounded where it stays below the limit of 4 GB at a
million rows. Processor seconds are told beside the time: they hardly mind other work on the machine. --reflect has the
scripted teacher rewrite every row, both ways.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from srecycle.testbed.originals import originals

LIMIT = 4 * 2**30
PART = 50_000
FIRST = ("source", "likelihoods", "scores", "select_instruction", "select_response", "assemble")
REFLECTING = ("reflect_instruction", "reflect_response")


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--reflect", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to work (default: a temporary folder)")
    options = parser.parse_args()
    stages = (FIRST[0], *REFLECTING, *FIRST[1:]) if options.reflect else FIRST
    measured: dict[int, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = options.keep or Path(folder)
        model = place / "student"
        # Apart: the memory of a process counts as that of those it starts, until they need more.
        one = multiprocessing.get_context("spawn").Process(target=student, args=(model,))
        one.start()
        one.join()
        for count in sorted(options.rows):
            data = written(place, count, options.parquet)
            store = place / f"store_{count}"
            measured[count] = {}
            for stage in stages:
                measured[count][stage] = run(stage, data, model, store, options.reflect)
                print(line(measured, count, stage), flush=True)
            print(f"store of {count:,} rows: {size(store) / 2**20:,.0f} MiB", flush=True)
            if not options.keep:
                shutil.rmtree(store)
                data.unlink()
    largest = max(one["memory"] for one in measured[max(measured)].values())
    told = f"{largest / 2**30:.2f} GiB at {max(measured):,} rows, limit {LIMIT / 2**30:.0f} GiB"
    print(f"most memory: {told}, ratio {largest / LIMIT:.2f}")
    if options.json:
        machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
        options.json.write_text(json.dumps({"machine": machine, "rows": measured}, indent=1) + "\n")


def student(folder: Path) -> None:
    """Write a random student of next to no cost."""
    from srecycle.testbed.pretrain import STUDENTS, build_model
    from srecycle.testbed.vocabulary import build_tokenizer

    tokenizer = build_tokenizer()
    build_model(replace(STUDENTS["novice"], width=16, layers=1, heads=2), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def written(place: Path, count: int, parquet: bool) -> Path:
    """Write the file."""
    rows = (
        {"instruction": one.instruction, "input": "", "output": one.response}
        for seed in range(math.ceil(count / PART))
        for one in originals(min(PART, count - seed * PART), seed)
    )
    if not parquet:
        file = place / f"{count}.jsonl"
        with file.open("w") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        return file
    file = place / f"{count}.parquet"
    schema = pa.schema([(name, pa.string()) for name in ("instruction", "input", "output")])
    with pq.ParquetWriter(file, schema) as writer:
        while part := list(islice(rows, PART)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
    return file


def run(stage: str, data: Path, model: Path, store: Path, reflect: bool) -> dict[str, float]:
    """Run one stage in its own process; return its seconds, the process's, and the most bytes that were resident."""
    asked = [
        *("data=alpaca", f"data.path={data}", f"student.path={model}", "student.device=cpu", "template=testbed"),
        *("teacher=scripted", "trainer=none", "evaluator=[none]", "tracker=none", f"until={stage}"),
        *("keep=[ifd_max,rifd_max]",),
    ]
    if not reflect:
        asked += ["selector@selector.instruction=never", "selector@selector.response=never"]
    process = subprocess.Popen(
        [sys.executable, "-m", "srecycle", *asked],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SRECYCLE_STORE": str(store)},
    )
    assert process.stderr is not None
    told = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} failed:\n{told}")
    [record] = (store / "artifacts" / stage).glob("*/provenance.json")
    worked = usage.ru_utime + usage.ru_stime
    return {"seconds": json.loads(record.read_text())["seconds"], "cpu": worked, "memory": usage.ru_maxrss * 1024}


def line(measured: dict[int, dict[str, dict[str, float]]], count: int, stage: str) -> str:
    """Tell one stage at one size, beside the smallest."""
    base, one = measured[min(measured)][stage], measured[count][stage]
    slower = (one["seconds"] / count) / (base["seconds"] / min(measured)) if base["seconds"] else float("nan")
    return (
        f"{count:>9,} rows  {stage:20} {one['seconds']:8.1f} s  {1e6 * one['seconds'] / count:8.1f} us a row "
        f"(x{slower:.2f} of {min(measured):,} rows)  {one['cpu']:8.1f} CPU s  {one['memory'] / 2**30:5.2f} GiB"
    )


def size(folder: Path) -> int:
    """Return how many bytes a folder holds."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
