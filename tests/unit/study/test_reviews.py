"""What recorded verdicts say of judges: by hand, and as srecycle-judge counts the published reviews."""

import json
from pathlib import Path
from typing import Any

import pytest

from srecycle.errors import UserError
from srecycle.study import reviews
from srecycle.study.outcomes import Outcomes, read_outcomes
from srecycle.study.plan import read_plan
from srecycle.study.tables import Made, asked
from tests.conftest import ROOT


def _outcomes(tmp_path: Path) -> Outcomes:
    (tmp_path / "study.toml").write_text('name = "try"\n[[tables]]\nkind = "reviews"\n')
    return read_outcomes(read_plan(tmp_path), tmp_path)


def _review(answers: tuple[str, str], scores: tuple[str, str]) -> dict[str, Any]:
    first, second = answers
    return {
        **{"question": f"{first} or {second}?", "answer_1": first, "answer_2": second},
        **{"review": f"{scores[0]}\nWhy.", "review_reverse": f"{scores[1]}\nWhy."},
    }


def _made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]) -> Made:
    (tmp_path / "own.json").write_text(json.dumps(lines))
    monkeypatch.setenv("SRECYCLE_REVIEWS", str(tmp_path))
    return reviews.orders(asked(_outcomes(tmp_path), {"title": "t", "files": ["own.json"]}))


def test_orders_tells_place_length_and_markup_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        _review(("a much longer answer", "short"), ("9 2", "2 9")),  # both orders for the longer
        _review(("tiny", "a much longer one"), ("9 2", "3 8")),  # both for the shorter
        _review(("even", "odds"), ("8 7", "8 7")),  # whichever comes first: a tie
        _review(("- one\n- two", "one and two"), ("9 2", "2 9")),  # alike in length, the one with a list
    ]
    (row,) = _made(tmp_path, monkeypatch, lines).rows
    assert row[:5] == ["own", "4 of 4", "3 / 1 / 0", "75%", "62%"]
    assert row[5].startswith("25.0% (") and row[6].startswith("25.0% (")
    assert row[7].startswith("50% (") and row[7].endswith(" of 2") and row[8] == "100% (100% to 100%) of 1"


def test_annotations_tell_the_win_rate_and_what_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("short", "a much longer one", 2), ("short", "a much longer one", 1), ("a", "b", 1.5), ("x", "y", None)]
    lines = [
        {"instruction": f"i{n}", "output_1": one, "output_2": two, "preference": preference}
        for n, (one, two, preference) in enumerate(texts)
    ]
    (tmp_path / "own.json").write_text(json.dumps(lines))
    monkeypatch.setenv("SRECYCLE_REVIEWS", str(tmp_path))
    (row,) = reviews.annotations(asked(_outcomes(tmp_path), {"title": "t", "files": ["own.json"]})).rows
    assert row[:3] == ["own", "3", "50.0%"] and row[3].startswith("50% (") and row[4] == "-"


def test_orders_without_a_folder_or_with_other_records_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRECYCLE_REVIEWS", raising=False)
    wanted = asked(_outcomes(tmp_path), {"title": "t", "files": ["own.json"]})
    with pytest.raises(UserError, match=r"SRECYCLE_REVIEWS is not set: name the folder that holds own\.json"):
        reviews.orders(wanted)
    with pytest.raises(UserError, match="record 0 has no 'review_reverse'"):
        line = {"question": "q", "answer_1": "a", "answer_2": "b", "review": "1 2"}
        _made(tmp_path, monkeypatch, [line])


def test_published_reviews_have_the_papers_counts(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRECYCLE_REVIEWS", str(shared / "data"))
    plan = read_plan(ROOT / "experiments/judge_probes")
    outcomes = read_outcomes(plan, shared)
    of_reviews, of_annotations = (dict(one) for one in plan.tables)
    made = reviews.orders(asked(outcomes, of_reviews))
    assert [row[1:3] for row in made.rows] == [["80 of 80", "44 / 15 / 21"], ["218 of 218", "102 / 54 / 62"]]
    rates = [row[2] for row in reviews.annotations(asked(outcomes, of_annotations)).rows]
    assert rates == ["26.5%", "83.5%"]
