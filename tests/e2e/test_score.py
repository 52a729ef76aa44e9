"""Scoring a data file: one command, no teacher, no training; and its parquet, one line a row."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from srecycle.report.runs import Run, read_run
from srecycle.scorer import LIKELIHOODS
from srecycle.scorer.scorer import SCORES
from tests.e2e.conftest import command
from tests.oracle import ById, Naive

pytestmark = pytest.mark.e2e

USER = "### Instruction:\n{}\n\n### Response:"
ROWS = [
    {"instruction": "Name the capital of France.", "input": "", "output": "The capital of France is Paris."},
    {"instruction": "Give three tips.", "input": "for staying healthy", "output": "Eat fruits \U0001f600. Walk."},
    {"instruction": "Say nothing.", "input": "", "output": "  \n"},
    {"instruction": " ", "input": "", "output": "An answer to no question."},
    {"instruction": "Name the capital of France.", "input": "", "output": "The capital of France is Paris."},
    {"instruction": "Repeat a word often.", "input": "", "output": "word " * 400},
]
STATUS = ["ok", "ok", "empty_response", "empty_instruction", "ok", "ok"]


def _score(*arguments: str, store: Path) -> tuple[Run, str]:
    process = command("experiment=score", "student.threads=1", *arguments, store=store, cwd=store.parent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (folder,) = (store / "runs").iterdir()
    return read_run(folder), errors


def _lines(run: Run) -> list[dict[str, Any]]:
    return list(pq.read_table(run.artifact("scores") / "scores.parquet").to_pylist())


@pytest.fixture
def alpaca(tmp_path: Path) -> Path:
    (tmp_path / "rows.json").write_text(json.dumps(ROWS))
    return tmp_path / "rows.json"


def test_command_scores_an_alpaca_file_row_by_row(
    tmp_path: Path, tiny_models: Mapping[str, Path], alpaca: Path
) -> None:
    student = f"student.path={tiny_models['llama']}"
    run, said = _score("data=alpaca", f"data.path={alpaca}", student, "template=plain", store=tmp_path / "store")

    assert [stage["label"] for stage in run.stages] == ["source", "likelihoods", "scores"]
    assert "OPENAI" not in said and "another template" not in said
    lines = _lines(run)
    assert [(line["position"], line["version"], line["status"]) for line in lines] == [
        (place, "original", status) for place, status in enumerate(STATUS)
    ]
    rows = pq.read_table(run.artifact("source") / "rows.parquet").to_pylist()
    for line, row, given in zip(lines, rows, ROWS, strict=True):
        assert {"instruction": line["instruction"], "input": line["input"], "output": line["response"]} == given
        assert line["id"] == row["id"]
        values = [line[name] for name in (*LIKELIHOODS, *SCORES)]
        assert len(values) == 16
        if line["status"] == "ok":
            assert line["loss_answer"] is line["confidence"] is None  # no text names its answer
            told = [value for value in values if value is not None]
            assert len(told) == 14 and all(isinstance(value, float) and math.isfinite(value) for value in told)
        else:
            assert values == [None] * 16
    assert lines[4]["id"] == f"{lines[0]['id']}-2"
    assert [line["target_truncated"] for line in lines] == [False] * 5 + [True]
    assert (lines[2]["tokens_y"], lines[2]["tokens_x"]) == (0, 0)
    assert run.metrics["scores/scored"] == 4 and run.metrics["scores/status/empty_response"] == 1

    request = (
        "Here is an answer that somebody gave:\n\n{}\n\nWhich instruction was it an answer to? Write that instruction."
    )
    y, x = ROWS[0]["output"], ROWS[0]["instruction"]
    oracle = ById(Naive(tiny_models["llama"]), "<s>")
    told = oracle.four(USER.format(x), USER.format(request.format(y)), f"\n{y}", f"\n{x}")
    assert not isinstance(told, str)
    expected = dict(zip(LIKELIHOODS, (one.mean for one in told), strict=False))
    for line in (lines[0], lines[4]):
        assert {name: line[name] for name in expected} == pytest.approx(expected, rel=1e-5)
        assert line["ifd"] == pytest.approx(math.exp(told[0].mean - told[1].mean), rel=1e-4)
        assert line["r_ifd"] == pytest.approx(math.exp(told[2].mean - told[3].mean), rel=1e-4)
        assert (line["tokens_y"], line["tokens_x"]) == (len(told[1].losses), len(told[3].losses))


def test_score_of_a_chat_file_takes_the_last_turn_and_tells_what_has_none(
    go: Callable[..., Run], tmp_path: Path, tiny_models: Mapping[str, Path]
) -> None:
    def turns(*texts: str) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]

    conversations = [
        turns("Name the capital of France.", "Paris."),
        turns("Hello", "Hi", "Name the capital of France.", "Paris."),
        turns("A question that nobody answered"),
        [{"role": "system", "content": "Be brief."}, *turns("Name the capital of France.", "Paris.")],
    ]
    file = tmp_path / "chat.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))
    run = go(
        "experiment=score",
        "data=chat",
        f"data.path={file}",
        f"student.path={tiny_models['llama']}",
        "student.device=cpu",
        "student.threads=1",
        "template=chatml",
    )

    lines = _lines(run)
    assert [(line["position"], line["status"]) for line in lines] == [
        (0, "ok"),
        (1, "ok"),
        (2, "empty_response"),
        (3, "ok"),
    ]
    assert [len(line["history"]) for line in lines] == [0, 2, 0, 1]
    assert lines[2]["instruction"] == "A question that nobody answered" and lines[2]["ifd"] is None
    one, after_talk, _, briefed = lines
    assert one["loss_y"] == pytest.approx(after_talk["loss_y"]) == pytest.approx(briefed["loss_y"])
    assert len({round(line["loss_y_given_x"], 6) for line in (one, after_talk, briefed)}) == 3


@pytest.mark.slow
def test_command_scores_as_the_reference_does_with_a_request_from_a_file_and_says_so(
    tmp_path: Path, tiny_models: Mapping[str, Path], alpaca: Path, shared: Path
) -> None:
    request = (shared / "reference" / "reversed_request.txt").read_text()
    run, said = _score(
        *("data=alpaca", f"data.path={alpaca}", f"student.path={tiny_models['llama']}", "template=plain"),
        *("scorer=reference", f'scorer.reversed_request="{request}"'),
        store=tmp_path / "store",
    )

    assert "scored in another template than it is trained in" in said
    assert run.metrics["likelihoods/scored_in_another_template"] is True
    assert run.config["scorer"]["reversed_request"] == request
    assert run.config["scoring_template"]["user"] == " USER: {instruction} ASSISTANT:"
    assert run.config["template"]["user"] == "### Instruction:\n{instruction}\n\n### Response:"
    assert [line["status"] for line in _lines(run)][2:4] == ["empty_response", "empty_instruction"]


def test_command_reference_without_the_request_says_what_is_missing(
    tmp_path: Path, tiny_models: Mapping[str, Path], alpaca: Path
) -> None:
    arguments = ("data=alpaca", f"data.path={alpaca}", f"student.path={tiny_models['llama']}", "scorer=reference")
    process = command("experiment=score", *arguments, store=tmp_path / "store", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "Traceback" not in errors
    assert "scorer.reversed_request is not set" in errors.strip().splitlines()[-1]
