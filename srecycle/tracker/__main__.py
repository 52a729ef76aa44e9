"""The command `srecycle-dashboard`: a W&B workspace and a W&B report over the runs of a store.

Users' mistakes end in one line on standard error and exit code 2.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.tracker.dashboard import Dashboard, dashboard, plain
from srecycle.tracker.logged import logged

_NEEDED = "pip install 'srecycle[dashboards]', a key (`wandb login`, or WANDB_API_KEY), and the runs synced to W&B"


def main(arguments: Sequence[str] | None = None) -> int:
    """Save the dashboard in W&B, or print it, and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        board = _board(options.store.expanduser(), options.group, options.metric)
        if options.dry_run:
            print(json.dumps({"project": options.project, "entity": options.entity, **plain(board)}, indent=1))  # noqa: T201
            say(f"nothing was sent; to have it in W&B: {_NEEDED}; then the same without --dry-run")
            return 0
        _publish(board, options.entity, options.project)
    except UserError as error:
        say(f"srecycle-dashboard: error: {' '.join(str(error).split())}")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="srecycle-dashboard",
        description="Lay out what the runs of a store have logged as a W&B workspace and a W&B report: results, "
        "threshold curves, teachers and students, composition, scores, training curves, cost, tables of decisions.",
        epilog=f"It needs {_NEEDED}. Each call makes a new workspace view and a new report.",
    )
    store = Path(os.environ.get("SRECYCLE_STORE") or "./srecycle_store")
    parser.add_argument("--store", type=Path, default=store, help="the store (now: %(default)s)")
    parser.add_argument("--group", help="the runs of this group only: a sweep, or what `group=` named")
    parser.add_argument(
        "--metric", metavar="NAME", help="what runs are compared by (default: the first that was evaluated)"
    )
    parser.add_argument("--project", default=os.environ.get("WANDB_PROJECT") or "srecycle", help="(now: %(default)s)")
    parser.add_argument(
        "--entity", default=os.environ.get("WANDB_ENTITY"), help="user or team (default: the account's)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the dashboard as JSON, and send nothing")
    return parser


def _board(store: Path, group: str | None, metric: str | None) -> Dashboard:
    """Return the dashboard of a store's runs. Raises UserError where there are none."""
    folders = sorted(path.parent for path in (store / "runs").glob("*/metrics.jsonl"))
    found = logged(folders, group)
    if not found.runs:
        of = f" of group {group}" if group else ""
        raise UserError(f"{store} has no run{of} that logged anything: give --store PATH or set SRECYCLE_STORE")
    return dashboard(found, group=group, metric=metric or _swept_metric(store, group))


def _swept_metric(store: Path, group: str | None) -> str | None:
    """Return what a sweep of ours went by; None where the group is none, or went by nothing."""
    try:
        plan = json.loads((store / "sweeps" / (group or "") / "plan.json").read_text())
    except (OSError, ValueError):
        return None
    return str(plan["metric"]) if plan.get("metric") else None


def _publish(board: Dashboard, entity: str | None, project: str) -> None:
    from srecycle.tracker.wandb import WandbTracker, library
    from srecycle.tracker.workspace import Libraries, publish

    Libraries()
    defaults: dict[str, Any] = {}  # mypy sees no default that `runtime` declares
    line = WandbTracker(**defaults).line()
    if line.mode != "online":
        why = line.why or "WANDB_MODE=disabled"
        raise UserError(f"a dashboard lives in W&B, which can't be asked ({why}); --dry-run prints what would be sent")
    done = publish(board, library().Api(), entity=entity, project=project)
    if done.without_pairs:
        say(f"without the heat map of teachers and students, which W&B refused ({done.without_pairs})")
    say(f"workspace: {done.workspace}")
    say(f"report: {done.report}")


if __name__ == "__main__":
    sys.exit(main())
