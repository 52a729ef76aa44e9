"""The orders of rows, and how many steps a match makes of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from srecycle.errors import UserError
from srecycle.trainer.order import Order, Passes, arranged, steps_for_tokens

IDS = ["d", "a", "c", "b", "e"]
SCORES: dict[str, Sequence[float | None]] = {
    "ifd": [0.5, None, 0.2, 0.5, 0.9],
    "loss_y_given_x": [1.0, 3.0, 2.0, 3.0, None],
}


def _ids(passes: Passes, number: int = 0) -> str:
    return "".join(IDS[row] for step in passes.of(number) for row in step)


@pytest.mark.parametrize(
    ("order", "expected", "missing"),
    [("source", "dacbe", 0), ("curriculum", "cbdea", 1), ("rare_first", "abcde", 1)],
)
def test_arranged_fixed_order_is_the_same_in_every_pass_and_counts_rows_without_score(
    order: Order, expected: str, missing: int
) -> None:
    passes = arranged(order, IDS, SCORES, batch_size=2, seed=3)
    assert _ids(passes) == _ids(passes, 5) == expected
    assert passes.without_score == missing
    assert [len(step) for step in passes.of(1)] == [2, 2, 1] and passes.steps_per_pass == 3


@pytest.mark.parametrize("seed", [0, 7])
def test_arranged_shuffled_is_what_accelerate_draws_from_that_seed(seed: int) -> None:
    from accelerate.data_loader import prepare_data_loader
    from accelerate.state import PartialState

    PartialState(cpu=True)
    ids = [str(number) for number in range(23)]
    ours = arranged("shuffled", ids, {}, batch_size=4, seed=seed)
    loader: Any = DataLoader(TensorDataset(torch.arange(23)), batch_size=4, shuffle=True)
    theirs = prepare_data_loader(loader, put_on_device=False, use_seedable_sampler=True, data_seed=seed)
    for number in range(3):
        theirs.set_epoch(number)
        assert [tuple(batch[0].tolist()) for batch in theirs] == ours.of(number)
    assert ours.of(0) != ours.of(1)


def test_arranged_score_that_no_row_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer.order=curriculum needs each row's ifd, and none of 5 rows has it"):
        arranged("curriculum", IDS, {"ifd": [None] * 5}, batch_size=2, seed=0)


def test_passes_first_trains_that_many_steps_and_finds_their_rows() -> None:
    passes = arranged("shuffled", IDS, {}, batch_size=2, seed=1).first(7)
    steps = list(passes.trained())
    assert len(steps) == 7 and passes.begun == 3
    assert [passes.at(number) for number in range(1, 8)] == steps
    assert Counter(row for step in steps[:6] for row in step) == dict.fromkeys(range(5), 2)


@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (30, 1), (31, 2), (150, 3), (151, 4), (300, 6), (301, 7)])
def test_steps_for_tokens_are_the_fewest_that_read_them(tokens: int, steps: int) -> None:
    passes = arranged("source", IDS, {}, batch_size=2, seed=0)
    assert steps_for_tokens(passes, [10, 20, 30, 40, 50], tokens) == steps
