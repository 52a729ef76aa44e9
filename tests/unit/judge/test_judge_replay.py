"""Recorded reviews: the published counts, and what a recording must look like."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.judge.__main__ import judged, main
from srecycle.judge.base import Case
from srecycle.judge.pairs import figures
from srecycle.judge.replay import ReplayJudge, recorded_pairs
from srecycle.teacher import Ledger
from tests.conftest import ROOT

REVIEW = {"question": "q", "answer_1": "a", "answer_2": "b", "review": "9 8", "review_reverse": "7 9"}
PUBLISHED = {"vicuna_80": (44, 15, 21), "wizardlm_218": (102, 54, 62)}


def _file(folder: Path, *reviews: dict[str, Any], name: str = "reviews.json") -> Path:
    (folder / name).write_text(json.dumps(reviews))
    return folder / name


def _case(first: str, second: str, id: str = "x") -> Case:
    return Case(id=id, position=0, question="q", answers=(first, second), messages=[])


@pytest.mark.parametrize("name", PUBLISHED)
def test_recorded_reviews_give_the_published_counts(shared: Path, name: str) -> None:
    win, tie, lose = PUBLISHED[name]
    found = figures(judged(shared / f"data/judge/{name}_gpt4_reviews.json"), 0)
    assert (found["win"], found["tie"], found["lose"]) == (win, tie, lose)
    assert found["asked"] == found["judged"] == win + tie + lose
    assert found["win_rate"] == (win - lose) / (win + tie + lose) + 1


def test_reviews_command_prints_the_published_counts(shared: Path) -> None:
    files = [str(shared / f"data/judge/{name}_gpt4_reviews.json") for name in PUBLISHED]
    command = [sys.executable, "-m", "srecycle.judge", "reviews", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ))
    for counts in (("80", "80", "44", "15", "21", "1.288"), ("218", "218", "102", "54", "62", "1.183")):
        assert any(line.split()[1:7] == list(counts) for line in done.stdout.splitlines())


def test_reviews_command_tells_what_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reviews", str(_file(tmp_path, REVIEW | {"review_reverse": "no idea"}))]) == 0
    assert "no verdict: 1 unparsed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "q", "answer_1": "a", "answer_2": "b", "review": "9 8"}, "record 0 has no 'review_reverse'"),
        ({"answer_1": "a"}, "has no column 'answer_2'"),
        ({key: REVIEW[key] for key in REVIEW if key != "question"}, "none of the columns question"),
        (REVIEW | {"review": 3}, "'review' should be text"),
    ],
)
def test_reviews_command_other_records_are_an_error_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], said: str
) -> None:
    assert main(["reviews", str(_file(tmp_path, record))]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_replay_answers_by_content_in_the_order_shown(tmp_path: Path) -> None:
    second = REVIEW | {"review": "3 4"}
    judge = ReplayJudge(paths=(_file(tmp_path, REVIEW, second),))
    asked = [_case("a", "b"), _case("b", "a"), _case(" a ", "b\n"), _case("a", "c"), _case("a", "b", "x-2")]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        replies = judge.replies(asked, ledger)
    assert [reply.text for reply in replies] == ["9 8", "7 9", "9 8", "", "3 4"]
    assert [reply.status for reply in replies] == ["ok", "ok", "ok", "not_recorded", "ok"]
    assert not any(reply.paid for reply in replies)


def test_replay_identity_is_the_content(tmp_path: Path) -> None:
    def key(path: Path) -> str:
        return fingerprint(identity(ReplayJudge(paths=(path,))))

    first = key(_file(tmp_path, REVIEW))
    assert key(_file(tmp_path, REVIEW, name="moved.json")) == first
    assert key(_file(tmp_path, REVIEW | {"review": "1 2"})) != first


def test_replay_without_reviews_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no reviews"):
        ReplayJudge(paths=(_file(tmp_path),)).check()
    with pytest.raises(UserError, match="not a file"):
        ReplayJudge(paths=(tmp_path / "nowhere.json",)).check()


def test_recorded_pairs_duplicates_are_told_apart(tmp_path: Path) -> None:
    one, two, other = recorded_pairs(_file(tmp_path, REVIEW, REVIEW, REVIEW | {"answer_2": "c"}))
    assert two.id == f"{one.id}-2" and other.id not in (one.id, two.id)
    assert (one.own, one.other, [pair.position for pair in (one, two, other)]) == ("a", "b", [0, 1, 2])


@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl"])
def test_recording_nested_too_deep_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deep"):
        judged(tmp_path / name)
