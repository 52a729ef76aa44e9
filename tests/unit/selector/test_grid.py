"""The grid joins by id and version, whatever the order of the tables."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srecycle.reflection.versions import VERSION_SCHEMA
from srecycle.rows import KINDS, LIKELIHOOD_SCHEMA, versions_of
from srecycle.selector.grid import version_grid

IDS = [f"id{n}" for n in range(6)]


def _version(identifier: str, version: str, status: str = "ok") -> dict[str, Any]:
    texts = dict.fromkeys(("instruction", "input", "response", "label"), "")
    return {"id": identifier, "position": 0, "history": [], "version": version, "status": status, **texts}


def _likelihood(identifier: str, version: str, loss: float | None, status: str = "ok") -> dict[str, Any]:
    losses = dict.fromkeys(("loss_y", "loss_x_given_y", "loss_x"), None if loss is None else 1.0)
    counts = {"tokens_y": 1, "tokens_x": 1, "context_truncated": False, "target_truncated": False}
    return {"id": identifier, "version": version, "status": status, "loss_y_given_x": loss, **losses, **counts}


def _grid(versions: list[dict[str, Any]], *likelihoods: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    table = pa.Table.from_pylist(versions, schema=VERSION_SCHEMA)
    grid = version_grid(table, [pa.Table.from_pylist(lines, schema=LIKELIHOOD_SCHEMA) for lines in likelihoods])
    found = {}
    for row, identifier in enumerate(grid.ids):
        for place, version in enumerate(grid.versions):
            line = int(grid.line[row, place])
            if line >= 0:
                assert (versions[line]["id"], versions[line]["version"]) == (identifier, version)
            value = float(grid.columns["perplexity"][row, place])
            shown = None if np.isnan(value) else round(value, 9)
            found[identifier, version] = (line >= 0, grid.status[row, place], grid.score_status[row, place], shown)
    return found


@given(st.randoms(use_true_random=False), st.data())
def test_version_grid_shuffled_tables_give_the_same_cells(rng: random.Random, data: Any) -> None:
    names = versions_of(data.draw(st.integers(1, 3)))
    places = [(identifier, version) for identifier in IDS for version in names]
    present = data.draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    scored = data.draw(st.lists(st.sampled_from(present), unique=True))
    versions = [_version(*place) for place in present]
    likelihoods = [_likelihood(*place, loss=0.01 * places.index(place)) for place in scored]
    cut = len(likelihoods) // 2
    before = _grid(versions, likelihoods)
    rng.shuffle(versions)
    rng.shuffle(likelihoods)
    assert _grid(versions, likelihoods[:cut], likelihoods[cut:]) == before
    for place in scored:
        assert before[place][3] == round(float(np.exp(0.01 * places.index(place))), 9)


def test_version_grid_says_why_a_cell_has_no_score() -> None:
    versions = [_version("a", "original"), _version("a", "instruction", "unparsed"), _version("a", "response")]
    likelihoods = [_likelihood("a", "original", 0.0), _likelihood("a", "response", None, "empty_response")]
    cells = _grid(versions, likelihoods)
    assert cells["a", "original"] == (True, "ok", "ok", 1.0)
    assert cells["a", "instruction"][:3] == (True, "unparsed", "unscored")
    assert cells["a", "response"][:3] == (True, "ok", "empty_response")
    assert cells["a", "both"][:3] == (False, "absent", "unscored")
    assert all(cells["a", version][3] is None for version in KINDS[1:])


def test_version_grid_overflow_is_missing_though_its_likelihoods_are_ok() -> None:
    cells = _grid([_version("a", "original")], [_likelihood("a", "original", 2000.0)])
    assert cells["a", "original"] == (True, "ok", "ok", None)


def test_version_grid_has_a_column_for_every_sample_of_every_kind() -> None:
    made = [_version("a", "original"), *(_version("b", f"response{number}") for number in ("-3", "", "-2"))]
    cells = _grid(made, [_likelihood("b", "response-2", 0.0)])
    assert [version for identifier, version in cells if identifier == "a"] == list(versions_of(3))
    assert {place for place, cell in cells.items() if cell[0]} == {(one["id"], one["version"]) for one in made}
    assert cells["b", "response-2"] == (True, "ok", "ok", 1.0)
    assert cells["b", "both-3"] == cells["a", "response"] == (False, "absent", "unscored", None)


def test_version_grid_a_version_that_a_row_has_twice_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="two versions of the same name"):
        _grid([_version("a", "both"), _version("a", "both")])
