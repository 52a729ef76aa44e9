"""Table 6: the statistics of a data set, from a run's tables."""

import math

import pyarrow as pa
import pytest

from srecycle.report.comparison import entries
from srecycle.report.paper import REMARKS, paper_grids
from srecycle.report.paper_statistics import statistics
from tests.unit.report.paper_runs import config, lines_of, row

SCORES = (
    # id, version, tokens of x and y, ppl of x, of y, of y given x
    ("a", "original", 10, 20, 4.0, 8.0, 2.0),
    ("a", "both", 30, 40, 2.0, 3.0, 1.5),
    ("b", "original", 20, 60, 6.0, 10.0, 5.0),
    ("b", "response", 20, 90, 6.0, 4.0, 3.0),
    ("b", "both", 50, None, None, None, None),  # could not be scored
    ("c", "original", 90, 10, 8.0, 12.0, 11.0),
)
COHERENCE = {("a", "original"): 0.5, ("a", "both"): 0.75, ("b", "original"): 0.25, ("b", "response"): 1.0}
TAKEN = (("a", "both", True), ("b", "response", True), ("c", "original", False), ("original:c", "original", True))


def _loss(perplexity):
    return None if perplexity is None else math.log(perplexity)


@pytest.fixture
def scored(built):
    """A run of the selective arm with three rows, of which two are kept and the third is mixed in as it was."""
    names = ("id", "version", "tokens_x", "tokens_y", "loss_x", "loss_y", "loss_y_given_x", "ifd")
    lines = [
        (*four, *map(_loss, ppl), ppl[2] / ppl[1] if ppl[1] else None)
        for *four, px, py, pyx in SCORES
        for ppl in [(px, py, pyx)]
    ]
    built.put("scores", "k0", "scores", pa.Table.from_pylist([dict(zip(names, one, strict=True)) for one in lines]))
    embedded = [{"id": key[0], "version": key[1], "coherence": value} for key, value in COHERENCE.items()]
    built.put("embeddings", "k0", "embeddings", pa.Table.from_pylist(embedded))
    training = [dict(zip(("id", "version", "kept"), one, strict=True)) for one in TAKEN]
    built.put("assemble", "k6", "training", pa.Table.from_pylist(training))
    keys = {"scores": "k0", "embeddings": "k0", "assemble": "k6"}
    stages = [{"label": name, "stage": name, "key": key, "how": "run", "seconds": 1.0} for name, key in keys.items()]
    settings = config(trainer={"class": "x.NoTrainer"}, evaluator={"none": {"class": "x.NoEvaluator"}})
    return built.run("mine", config=settings, stages=stages, metrics={"source/rows": 52002})


def test_statistics_are_means_over_the_rows_of_a_version(scored):
    found = statistics(scored, "original")
    assert found["tokens_x"] == 40 and found["tokens_y"] == 30
    assert found["ppl_x"] == pytest.approx(6) and found["ppl_y"] == pytest.approx(10)
    assert found["ppl_y_given_x"] == pytest.approx(6)
    assert found["ifd"] == pytest.approx((2 / 8 + 5 / 10 + 11 / 12) / 3)
    assert found["coherence"] == pytest.approx(0.375)


def test_statistics_of_unscored_rows_leave_their_missing_values_out(scored):
    found = statistics(scored, "both")
    assert (found["tokens_x"], found["tokens_y"]) == (40, 40)
    assert found["ppl_y"] == pytest.approx(3)


def test_statistics_of_the_kept_rows_are_those_of_the_version_taken(scored):
    found = statistics(scored, "kept")
    assert (found["tokens_x"], found["tokens_y"]) == (25, 65)
    assert found["coherence"] == pytest.approx(0.875)


def test_statistics_without_scores_are_none(built):
    assert statistics(built.run("mine"), "original") == {}


def test_table_6_has_the_three_lines_of_one_run(scored):
    (grid,) = (one for one in paper_grids(entries([scored])) if one.name == "paper-table-6")
    assert lines_of(grid, "mine") == ["Original Alpaca", "Recycled Alpaca", "sRecycled Alpaca"]
    assert row(grid, "Original Alpaca", "difference")["tokens of x"].text == "+19.3"
    assert row(grid, "sRecycled Alpaca", "own")["coherence"].text == "0.88"
    remarks = {row(grid, name, "own")[REMARKS].text for name in lines_of(grid, "mine")}
    assert remarks == {"as in the paper"}
    assert row(grid, "Original WizardLM")[REMARKS].text == "not run: srecycle experiment=paper/table6"
