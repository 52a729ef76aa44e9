"""Calibration: hedging that is gone, and certainty that the student doesn't share."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from srecycle.keep.calibrated import Calibrated, certainties, hedges
from srecycle.reflection.parsing import parse
from srecycle.rows import KINDS
from tests.unit.keep.taken import permuted, taken

NAN = math.nan
UNSURE = "It may be about 40, but I'm not sure."
SURE = "It is definitely 40."


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (UNSURE, 3),
        ("Perhaps in May, about 3 weeks later; it is debated.", 3),
        ("Tell me about plants; they can grow. He seems tall, the dismay was unlikely.", 1),
        ("", 0),
    ],
)
def test_hedges_are_counted(text: str, count: int) -> None:
    assert hedges(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("This will always work, without a doubt. DEFINITELY!", 3),
        ("Always label it clearly, and never mind. Uncertainly so; guarantees are given.", 0),
        ("I am 100% sure", 1),
    ],
)
def test_certainties_are_counted(text: str, count: int) -> None:
    assert certainties(text) == count


def test_calibrated_hedging_is_lost_where_no_hedge_of_enough_is_left() -> None:
    now = ["It is 40.", "It may be 40.", "It is 40.", "It is 40."]
    before = [UNSURE, UNSURE, "It may be 40.", "It is 41."]
    chosen = taken(4, response=now, original_response=before, version=["response"] * 4)
    one = Calibrated(confidence=False)
    assert one.reasons(chosen).tolist() == ["hedging_lost", "", "", ""]
    assert Calibrated(confidence=False, hedges=1).reasons(chosen).tolist() == ["hedging_lost", "", "hedging_lost", ""]
    assert one.needed == ("response", "original_response")


def test_calibrated_hedging_is_asked_of_answers_to_the_original_instruction_only() -> None:
    versions = [*KINDS, "response-2"]
    chosen = taken(5, response=["It is 40."] * 5, original_response=[UNSURE] * 5, version=versions)
    expected = ["", "", "hedging_lost", "", "hedging_lost"]
    assert Calibrated(confidence=False).reasons(chosen).tolist() == expected


def test_calibrated_added_certainty_needs_a_student_that_is_sure() -> None:
    chosen = taken(
        6,
        {"perplexity": [9.0, 10.0, 10.5, 99.0, NAN, NAN]},
        response=[SURE, SURE, SURE, "It is 40.", SURE, "It is 40."],
        original_response=["It is 40."] * 6,
        status=["ok"] * 4 + ["too_short"] * 2,
    )
    one = Calibrated(hedging=False)
    assert one.reasons(chosen).tolist() == ["", "", "overconfident", "", "perplexity_too_short", ""]
    assert "perplexity" in one.needed
    assert Calibrated(hedging=False, uncertain_above=200).reasons(chosen).tolist()[2] == ""
    assert one.reasons(permuted(chosen, [4, 2, 0])).tolist() == ["perplexity_too_short", "overconfident", ""]


def test_calibrated_certainty_of_the_original_is_no_news() -> None:
    columns = {"perplexity": [99.0] * 3}
    before = [SURE, "It is 40.", SURE + SURE]
    chosen = taken(3, columns, response=[SURE] * 3, original_response=before, version=["both", "original", "response"])
    assert Calibrated().reasons(chosen).tolist() == ["", "", ""]


def test_calibrated_flag_keeps_rows_and_counts_them() -> None:
    chosen = taken(
        2, {"perplexity": [99.0, 1.0]}, response=[SURE] * 2, original_response=[UNSURE] * 2, version=["response"] * 2
    )
    one = Calibrated(action="flag")
    assert one.reasons(chosen).tolist() == ["", ""]
    assert {name: int(rows.sum()) for name, rows in one.findings(chosen).items()} == {
        "hedging_lost": 2,
        "overconfident": 1,
    }


@pytest.mark.parametrize("settings", [{"action": "drop"}, {"hedges": 0}, {"uncertain_above": 0.5}])
def test_calibrated_setting_without_meaning_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Calibrated(**settings)  # type: ignore[arg-type]


def test_calibrated_real_rewrites_seldom_fire(shared: Path) -> None:
    """Two of 120, both of them stories: what is left of the false alarms."""
    rows = json.loads((shared / "data/alpaca_subset_3111.json").read_text())
    replies = [json.loads(line) for line in (shared / "data/reflections/replies.jsonl").read_text().splitlines()]
    replies = [one for one in replies if one["kind"] == "response_original"]
    chosen = taken(
        len(replies),
        {"perplexity": [99.0] * len(replies)},
        ids=[str(one["index"]) for one in replies],
        version=["response"] * len(replies),
        response=[parse("response", one["reply"], "stop").response for one in replies],
        original_response=[rows[one["index"]]["output"] for one in replies],
    )
    told = Calibrated().reasons(chosen)
    assert {*zip(chosen.id[told != ""], told[told != ""], strict=True)} == {
        ("1480", "hedging_lost"),
        ("2128", "hedging_lost"),
    }
