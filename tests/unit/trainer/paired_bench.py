"""Eleven preference pairs of different lengths, and an independent account of what DPO makes of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from srecycle.student.encoding import Encoded
from srecycle.student.model import Loaded
from srecycle.trainer.base import TrainingSet
from srecycle.trainer.dpo import DPOTrainer
from srecycle.trainer.order import arranged
from srecycle.trainer.pairs import pair_set
from tests.unit.trainer.conftest import ROWS, SMALL, TEMPLATE, WORDS, Bench

PAIRS: list[dict[str, Any]] = [
    {
        **{name: row[name] for name in ("id", "instruction", "input", "history")},
        "chosen": row["response"],
        "rejected": " " + " ".join(WORDS[::-1][number % 5 : number % 5 + 1 + 3 * number % 8]),
    }
    for number, row in enumerate(ROWS)
]


class PairedBench(Bench):
    """A bench whose data has pairs beside its rows."""

    def data(self, loaded: Loaded) -> TrainingSet:
        return replace(super().data(loaded), pairs=pair_set(loaded, TEMPLATE, PAIRS, {}))


def dpo(**settings: Any) -> DPOTrainer:
    """Return a small trainer whose learning rate is constant, so that fewer steps are the beginning of more."""
    return DPOTrainer(**({"rank": 2, "schedule": "constant_with_warmup"} | SMALL | settings))


def log_probability(model: Any, sequence: Encoded) -> float:
    """Return the summed log-probability (nats) of a completion, read alone in double precision."""
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([sequence.ids])).logits[0].double(), -1)
    return float(sum(rows[place - 1, sequence.ids[place]] for place in range(sequence.target_start, len(sequence.ids))))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def pair_loss(loss_type: str, beta: float, ratios: tuple[float, float], lengths: tuple[int, int]) -> float:
    """Return one pair's loss from both log-ratios of student and reference."""
    margin = ratios[0] - ratios[1]
    if loss_type == "sigmoid":  # Rafailov et al. 2023, equation 7
        return -math.log(sigmoid(beta * margin))
    if loss_type == "ipo":  # Azar et al. 2023, equation 17, per token
        return (ratios[0] / lengths[0] - ratios[1] / lengths[1] - 1 / (2 * beta)) ** 2
    if loss_type == "hinge":
        return max(0.0, 1 - beta * margin)
    assert loss_type == "robust"  # Chowdhury et al. 2024, with a tenth of the pairs flipped
    return (-0.9 * math.log(sigmoid(beta * margin)) + 0.1 * math.log(sigmoid(-beta * margin))) / 0.8


def step_figures(
    policy: Any, reference: Any, data: TrainingSet, step: int, loss_type: str, beta: float, sft_weight: float = 0.0
) -> dict[str, float]:
    """Return what a step of 4 pairs has to tell, the student being `policy` before it; the first step is 1."""
    assert data.pairs is not None
    endless = arranged("shuffled", data.pairs.ids, {}, batch_size=4, seed=0)
    rows = endless.first(step).at(step)
    sides = [[side[row] for row in rows] for side in (data.pairs.chosen, data.pairs.rejected)]
    logps = [[log_probability(policy, one) for one in side] for side in sides]
    ratios = [
        [logp - log_probability(reference, one) for logp, one in zip(many, side, strict=True)]
        for many, side in zip(logps, sides, strict=True)
    ]
    lengths = [[one.target_tokens for one in side] for side in sides]
    pairs, sizes = list(zip(*ratios, strict=True)), list(zip(*lengths, strict=True))
    preference = _mean([pair_loss(loss_type, beta, pair, size) for pair, size in zip(pairs, sizes, strict=True)])
    return {
        "loss": preference - sft_weight * sum(logps[0]) / sum(lengths[0]),  # a mean over tokens, not over pairs
        "rewards/margins": _mean([beta * (one - two) for one, two in pairs]),
        "rewards/accuracies": _mean([float(one > two) for one, two in pairs]),
        "logps/chosen": _mean(logps[0]),
        "logps/rejected": _mean(logps[1]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
