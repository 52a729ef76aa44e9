"""W&B's offline runs, read back by W&B's own reader."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class OfflineRun:
    """One offline run: what it says of itself, its configuration, summary, history lines and artifacts."""

    about: dict[str, Any]
    config: dict[str, Any]
    summary: dict[str, Any]
    history: list[dict[str, Any]]
    artifacts: list[dict[str, Any]]
    folder: Path

    def table(self, name: str) -> dict[str, Any]:
        """Return a table that was logged: columns and data."""
        found: dict[str, Any] = json.loads((self.folder / "files" / self.summary[name]["path"]).read_text())
        return found


def offline_run(folder: Path) -> OfflineRun:
    """Read an offline run's folder."""
    about = json.loads(_inspect("--summary", "--json", str(folder)))
    records = [json.loads(line) for line in _inspect("--json", str(folder)).splitlines()]
    return OfflineRun(
        about=about,
        config=about.pop("config"),
        summary=about.pop("summary"),
        history=[record["history"]["item"] for record in records if "history" in record],
        artifacts=[record["artifact"] for record in records if "artifact" in record],
        folder=folder,
    )


def _inspect(*arguments: str) -> str:
    program = Path(sys.executable).with_name("wandb")
    return subprocess.run([program, "leet", "inspect", *arguments], capture_output=True, text=True, check=True).stdout
