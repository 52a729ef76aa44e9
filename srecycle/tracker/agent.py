"""What `wandb agent` says of the run that it starts, in the environment: the sweep, and the run's id there."""

import os

from srecycle.tracker.base import RunInfo


def sweep() -> str | None:
    """Return the id of the W&B sweep that this process was started for. It brings project and entity with it."""
    return os.environ.get("WANDB_SWEEP_ID") or None


def run_id(run: RunInfo) -> str:
    """Return the id by which W&B is to know a run: the sweep's where there is one, else our own.

    Of several rounds the last is the sweep's, since that is what it measures.
    """
    rounds = str(run.config.get("rounds", 1)) if isinstance(run.config, dict) else "1"
    is_last = run.choices.get("round", rounds) == rounds
    return (os.environ.get("WANDB_RUN_ID") if sweep() and is_last else None) or run.id
