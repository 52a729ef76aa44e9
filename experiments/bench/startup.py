"""How long the commands take that compute nothing, from shell to prompt: `--help`, `mode=plan`, and a run found whole.

    python experiments/bench/startup.py [--quick] [--json FILE]

A store is filled by one run of the micro-world's chain; then each command is started as a process of its own. `rerun`
is that run again with everything found in the store, and still logs a whole W&B run (offline) and writes its report.
The baseline is the least that the libraries can do: a script that composes the same configuration by Hydra, and for
`rerun` begins a W&B run, logs one number to it and finishes it. Both take turns; figures are medians over the rounds.
Seconds of the processor are those of the process and of W&B's service, which it starts; where other work shares the
machine, they tell more than the wall's.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from srecycle.compose import config_folder

LIMITS: Mapping[str, float] = {"help": 1.0, "plan": 2.0, "rerun": 3.0}
"""The most seconds from shell to prompt that each command may take on two quiet cores."""

ARGUMENTS: Mapping[str, Sequence[str]] = {"help": ["--help"], "plan": ["mode=plan"], "rerun": []}
SMALL = ["data.count=48", "trainer.max_steps=4", "trainer.batch_size=4", "trainer.device_batch=4"]

BARE = """
import sys
import hydra

folder, *sys.argv[1:] = sys.argv[1:]


@hydra.main(version_base="1.3", config_path=folder, config_name="config")
def job(config):
    if config.mode == "plan":
        return
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    with wandb.init(mode="offline", project="bare", dir=config.store, settings=settings) as run:
        run.log({"number": 1.0})


job()
"""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a process took, with those that it started and waited for: seconds of the wall and of the processor."""

    wall: float
    processor: float


def main() -> None:
    """Print the figures, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a run of less than a minute: fewer rows and rounds")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as folder:
        spent = measure(Path(folder), SMALL if options.quick else [], rounds=3 if options.quick else 9)
    figures = {}
    print(f"{'command':10}{'seconds':>9}{'limit':>7}{'bare':>7}{'ratio':>7}   of the processor{'bare':>7}{'ratio':>7}")
    for name, pairs in spent.items():
        wall, processor = figure(pairs, "wall"), figure(pairs, "processor")
        share = median(ours.wall for ours, _ in pairs) / LIMITS[name]
        figures |= {
            f"seconds_{name}": wall,
            f"processor_seconds_{name}": processor,
            f"share_of_limit_{name}": {"value": round(share, 3), "unit": "", "baseline": 1.0, "ratio": round(share, 4)},
        }
        print(
            f"{name:10}{wall['value']:8.2f}s{LIMITS[name]:6.0f}s{wall['baseline']:6.2f}s{wall['ratio']:6.2f}x"
            f"{processor['value']:18.2f}s{processor['baseline']:6.2f}s{processor['ratio']:6.2f}x"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if late := [name for name, one in figures.items() if name.startswith("share_of_limit") and one["value"] > 1]:
        sys.exit(f"above the limit: {', '.join(late)}")


def figure(pairs: Sequence[tuple[Spent, Spent]], name: str) -> dict[str, Any]:
    """Return one figure as every benchmark writes it, from pairs of ours and bare."""
    ours, bare = ([getattr(one, name) for one in side] for side in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in zip(ours, bare, strict=True))
    return {"value": round(median(ours), 3), "unit": "s", "baseline": round(median(bare), 3), "ratio": round(ratio, 4)}


def measure(folder: Path, settings: Sequence[str], rounds: int) -> dict[str, list[tuple[Spent, Spent]]]:
    """Finish a run, then start each command and its bare counterpart in turns; return pairs of (ours, bare)."""
    bare = folder / "bare.py"
    bare.write_text(BARE)
    ours = [sys.executable, "-m", "srecycle"]
    theirs = [sys.executable, str(bare), str(config_folder())]
    environment = os.environ | {"SRECYCLE_STORE": str(folder / "store"), "WANDB_MODE": "offline"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    started([*ours, *settings], environment)
    found: dict[str, list[tuple[Spent, Spent]]] = {name: [] for name in ARGUMENTS}
    for _ in range(rounds):
        for name, arguments in ARGUMENTS.items():
            pair = [started([*command, *settings, *arguments], environment) for command in (ours, theirs)]
            found[name].append((pair[0], pair[1]))
    return found


def started(command: Sequence[str], environment: Mapping[str, str]) -> Spent:
    """Run a command to its end, and return what it took. What it says is shown only where it fails."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return Spent(wall=wall, processor=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    main()
