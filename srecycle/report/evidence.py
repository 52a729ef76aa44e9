"""What a run's tables say beyond its metrics, as whole columns: score distributions, and the training curve.

In: a run; its stages name the artifacts. Out: plain records, or None where an artifact is missing.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from srecycle.report.runs import Run
from srecycle.report.tables import Values, finite, floats, scored, table
from srecycle.scorer import LIKELIHOODS


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One score over rows: of the original versions, and of the versions that are kept to train on."""

    before: Values
    after: Values


def distributions(run: Run) -> dict[str, Distribution] | None:
    """Return the distributions of `ifd` and `r_ifd`, or None where the run has no likelihoods."""
    likelihoods = table(run, "likelihoods", "likelihoods", ("version", *LIKELIHOODS))
    training = table(run, "assemble", "training", ("kept", "ifd", "r_ifd"))
    if likelihoods is None or training is None:
        return None
    original = scored(likelihoods.filter(pc.equal(likelihoods["version"], "original")))
    kept = training.filter(training["kept"])
    return {
        name: Distribution(before=finite(original[name]), after=finite(floats(kept[name]))) for name in ("ifd", "r_ifd")
    }


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A training's losses (nats per token) by step."""

    steps: Values
    losses: Values


def curve(run: Run) -> Curve | None:
    """Return the supervised training's curve, or None where there was none: a preference loss is another quantity."""
    found = table(run, "train", "curve")
    if found is None:
        return None
    if "phase" in found.column_names:
        found = found.filter(pc.equal(found["phase"], "sft"))
    known = found.filter(pc.is_valid(found["loss"]))
    losses = Curve(steps=floats(known["step"]), losses=floats(known["loss"]))
    return losses if len(losses.steps) and np.isfinite(losses.losses).all() else None
