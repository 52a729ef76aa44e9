"""Coverage: the clusters are taken from in turn, whatever the order of the rows."""

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from srecycle.keep import Chosen, Keep, filtered
from srecycle.keep.base import EMBEDDING
from srecycle.keep.coverage import Coverage
from srecycle.keep.limit import IFDMax

CENTRES = {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0, 1)}
SIZES = {"a": 20, "b": 5, "c": 2}


def _chosen(ids: list[str], vectors: Any, ifd: list[float] | None = None, status: str = "ok") -> Chosen:
    return Chosen(
        id=np.array(ids, dtype=object),
        version=np.array(["both"] * len(ids), dtype=object),
        score_status=np.array([status] * len(ids), dtype=object),
        columns={"ifd": np.array(ifd if ifd is not None else [0.5] * len(ids), dtype=np.float64)},
        vectors={EMBEDDING: np.array(vectors, dtype=np.float32)},
    )


def _three_kinds() -> tuple[list[str], list[Any], list[float]]:
    """27 rows around three directions, of lengths that differ; their IFD falls with their number."""
    rng = np.random.default_rng(0)
    ids = [f"{kind}{number:02}" for kind, size in SIZES.items() for number in range(size)]
    vectors = [(np.array(CENTRES[one[0]]) + rng.normal(0, 0.02, 3)) * rng.uniform(0.1, 10) for one in ids]
    return ids, vectors, [1 - int(one[1:]) / 100 for one in ids]


def _kept(filter: Coverage, chosen: Chosen) -> set[str]:
    reasons = filter.reasons(chosen)
    assert {*reasons} <= {"", "already_covered"}
    return {*chosen.id[reasons == ""]}


@pytest.mark.parametrize(
    ("rows", "highest", "kept"),
    [
        (3, True, {"a00", "b00", "c00"}),
        (5, True, {"a00", "a01", "b00", "b01", "c00"}),
        (7, True, {"a00", "a01", "a02", "b00", "b01", "c00", "c01"}),
        (12, True, {*(f"a{n:02}" for n in range(5)), *(f"b{n:02}" for n in range(5)), "c00", "c01"}),
        (3, False, {"a19", "b04", "c01"}),
        (1, False, {"a19"}),
    ],
)
def test_coverage_takes_the_preferred_rows_of_each_cluster_in_turn(rows: int, highest: bool, kept: set[str]) -> None:
    found = _kept(Coverage(rows=rows, clusters=3, by="ifd", highest=highest), _chosen(*_three_kinds()))
    assert found == kept


def test_coverage_at_random_is_drawn_by_the_seed_alone_and_covers_too() -> None:
    ids, vectors, _ = _three_kinds()
    found = [_kept(Coverage(fraction=1 / 3, clusters=3, seed=seed), _chosen(ids, vectors)) for seed in (0, 1, 0)]
    assert found[0] == found[2] != found[1]
    for one in found:
        assert Counter(name[0] for name in one) in ({"a": 4, "b": 3, "c": 2}, {"a": 3, "b": 4, "c": 2})


@pytest.mark.parametrize("by", [None, "ifd"])
def test_coverage_order_of_the_rows_changes_nothing(by: str | None) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"r{n}", rng.normal(size=8), float(n % 5)) for n in range(300)]
    kept = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        ids, vectors, ifd = (list(column) for column in zip(*rows, strict=True))
        kept.append(_kept(Coverage(fraction=0.2, clusters=11, by=by), _chosen(ids, vectors, ifd)))
    assert kept[0] == kept[1] == kept[2] and len(kept[0]) == 60


def test_coverage_rows_without_embedding_or_score_are_refused_with_the_reason() -> None:
    ids, vectors, ifd = _three_kinds()
    vectors[0], ifd[1] = [np.nan] * 3, np.nan
    chosen = _chosen(ids, vectors, ifd)
    chosen.score_status[0] = "empty_response"
    reasons = Coverage(rows=25, clusters=3, by="ifd").reasons(chosen)
    assert reasons[:2].tolist() == ["embedding_empty_response", "ifd_non_finite"]
    assert {*reasons[2:]} == {""}
    assert {*Coverage(rows=27, clusters=3).reasons(_chosen(ids, [[np.nan] * 3] * 27))} == {"embedding_non_finite"}


@pytest.mark.parametrize("clusters", [1, 2, 27, 500])
def test_coverage_any_number_of_clusters_keeps_what_was_asked_for(clusters: int) -> None:
    ids, vectors, ifd = _three_kinds()
    assert len(_kept(Coverage(rows=9, clusters=clusters), _chosen(ids, vectors, ifd))) == 9
    same = _chosen(ids, [vectors[0]] * 27, ifd)
    assert _kept(Coverage(rows=2, clusters=clusters, by="ifd"), same) == {"a00", "b00"}
    assert Coverage(fraction=0.5, clusters=clusters).reasons(_chosen([], np.empty((0, 3)))).tolist() == []


def test_coverage_comes_after_what_judges_rows_alone() -> None:
    ids, vectors, ifd = _three_kinds()
    keep: dict[str, Keep] = {"coverage": Coverage(rows=3, clusters=3, by="ifd"), "limit": IFDMax(below=0.995)}
    reason = filtered(keep, _chosen(ids, vectors, ifd)).reason
    assert {one for one, why in zip(ids, reason, strict=True) if not why} == {"a01", "b01", "c01"}
    assert Counter(reason) == {"": 3, "ifd_too_high": 3, "already_covered": 21}


def test_coverage_needs_the_embedding_and_the_score() -> None:
    assert Coverage(rows=1).needed == (EMBEDDING,)
    assert Coverage(rows=1, by="grape").needed == (EMBEDDING, "grape")
    with pytest.raises(ValidationError, match="by"):
        Coverage(rows=1, by="beauty")
