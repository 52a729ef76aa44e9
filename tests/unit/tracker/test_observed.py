"""What is shown of stages beyond their metrics."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from srecycle.data import Source
from srecycle.data.testbed import Testbed as World
from srecycle.stage import How, Made
from srecycle.store import Artifact
from srecycle.tracker.observed import observed

JUDGMENTS = pa.table(
    {
        "id": [f"q{number}" for number in range(40)],
        "verdict": ["win", None] * 20,
        "score_1": [1.5, float("nan")] * 20,
        "reply": ["x" * 5000, "=cmd()<script>"] * 20,
    }
)


def _made(folder: Path, how: How = "run", **notes: object) -> Made:
    (folder / "provenance.json").write_text(json.dumps({"seconds": 2.5, "notes": notes}))
    artifact = Artifact(folder=folder, record={"key": "k", "metrics": {}, "files": {}})
    return Made(stage=Source(data=World(count=3, mix={"ok": 1.0})), artifact=artifact, how=how, seconds=0.0)


def test_judged_answers_are_sampled_alike_every_time_and_cut(tmp_path: Path) -> None:
    pq.write_table(JUDGMENTS, tmp_path / "judgments.parquet")
    made = _made(tmp_path)
    table = observed("evaluate/pairwise", made, {}, 10).tables["evaluate/pairwise/judged"]
    assert table == observed("evaluate/pairwise", made, {}, 10).tables["evaluate/pairwise/judged"]
    assert table["columns"] == ["id", "verdict", "score_1", "reply"] and len(table["rows"]) == 10
    ids = [row[0] for row in table["rows"]]
    assert ids != [f"q{number}" for number in range(10)] and len(set(ids)) == 10
    assert {row[2] for row in table["rows"]} == {1.5, None}
    assert {len(row[3]) < 1100 for row in table["rows"]} == {True}
    assert any("4,000 more characters" in row[3] for row in table["rows"])
    json.dumps(table, allow_nan=False)


def test_no_texts_are_shown_where_tables_are_to_have_no_rows(tmp_path: Path) -> None:
    pq.write_table(JUDGMENTS, tmp_path / "judgments.parquet")
    assert observed("evaluate/pairwise", _made(tmp_path), {}, 0).tables == {}


@pytest.mark.parametrize(("how", "paid"), [("run", 3), ("resume", 3), ("hit", 0.0)])
def test_cost_of_what_was_found_is_told_but_was_not_paid_by_this_run(tmp_path: Path, how: How, paid: float) -> None:
    calls = {"paid": 3, "usd": 0.5, "usd_paid": 3}
    made = _made(tmp_path, how, calls=calls, tokens_per_second=7.5, machine="x", broken=False)
    assert observed("reflect", made, {}, 5).figures == {
        "reflect/made_seconds": 2.5,
        "reflect/calls/paid": paid,
        "reflect/calls/usd": 0.5,
        "reflect/calls/usd_paid": paid,
        "reflect/tokens_per_second": 7.5,
    }


def test_artifact_whose_provenance_was_lost_shows_no_figures(tmp_path: Path) -> None:
    made = _made(tmp_path)
    (tmp_path / "provenance.json").unlink()
    assert observed("source", made, {}, 5).figures == {}
