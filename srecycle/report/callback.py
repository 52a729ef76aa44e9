"""What happens when a sweep ends: its runs are compared, on the screen and in `<sweep folder>/report.html`.

Hydra builds this at the start of every command, so importing it must cost nothing: what reads tables is imported when
a sweep has ended.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAILED = "failed.txt"
"""In a sweep's folder: a line for each job that failed, in whatever process or on whatever machine it ran."""

failed: list[str] = []
"""Why jobs of the sweeps that ended here failed."""


class Comparison(Callback):
    """Prints the comparison of a sweep's runs and why jobs failed, and writes the runs' report."""

    def on_multirun_end(self, config: "DictConfig", **kwargs: Any) -> None:
        """Compare the runs of the sweep's group: where the user named one, all that are in it, also from before."""
        from srecycle.progress import say

        if (reasons := Path(config.hydra.sweep.dir) / FAILED).is_file():
            failed.extend(reasons.read_text(encoding="utf-8").splitlines())
            say("\n".join(f"failed: {one}" for one in failed))
        if config.mode != "run":
            return
        from srecycle.errors import UserError
        from srecycle.report.html import write_report
        from srecycle.report.runs import read_runs
        from srecycle.report.screen import show_runs

        folder = Path(config.hydra.sweep.dir)
        group = config.group or folder.name
        try:
            runs = read_runs(Path(config.store).expanduser(), group)
            if not runs:
                say(f"no run of {group} left a result to compare")
                return
            show_runs(runs)
            say(f"report: {write_report(runs, folder / 'report.html')}")
        except UserError as error:
            say(f"srecycle: error: {' '.join(str(error).split())}")
