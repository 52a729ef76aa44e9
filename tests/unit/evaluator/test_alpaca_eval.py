"""AlpacaEval: the leaderboard's figures from recorded annotations, and a run judged through a real server."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.alpaca_eval import AlpacaEval
from srecycle.evaluator.base import Subject
from srecycle.judge import Judge
from srecycle.judge.annotations import read_annotations
from srecycle.judge.replay import ReplayJudge
from srecycle.store import Store
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import (
    DAVINCI,
    LONG,
    PREFERENCE,
    USD,
    begun,
    jsonl,
    served_judge,
    shown,
    small_subject,
)

QUESTIONS = ("what is 3 plus 4", "reverse the list 1 2 3", "what is 9 minus 2", "what is 3 plus 5", LONG)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def _longer(body: Mapping[str, Any]) -> str:
    """Prefer the longer output, whatever the order."""
    first, second = shown(body).partition("<1>")[2].split("<2>")
    return "1\nlonger" if len(first) > len(second) else "2\nlonger"


def _evaluator(folder: Path, judge: Judge, **fields: Any) -> AlpacaEval:
    """Ask five questions, of which the last has no room: the reference is long, empty, long, and missing."""
    prompts = jsonl(folder / "set.jsonl", *({"instruction": one, "dataset": one.split()[0]} for one in QUESTIONS))
    given = {QUESTIONS[0]: "x" * 500, QUESTIONS[1]: "", QUESTIONS[2]: "y" * 500, QUESTIONS[4]: "z"}
    written = [{"instruction": one, "output": text, "generator": DAVINCI} for one, text in given.items()]
    settings: dict[str, Any] = {
        "prompts": prompts,
        "version": 1,
        "judge": judge,
        "system": "",
        "request": PREFERENCE,
        "reference_outputs": jsonl(folder / "reference.jsonl", *written),
        "max_new_tokens": 8,
    }
    return AlpacaEval(**settings | fields)


@pytest.fixture
def nobody() -> Judge:
    return ReplayJudge(paths=(Path("nowhere.json"),))


@pytest.mark.parametrize(
    ("name", "rate", "error", "wins", "draws", "length"),
    [("recycled-wizardlm-7b-v2.0", "83.48", "1.31", 672, 0, 1583), ("alpaca-7b", "26.46", "1.54", 205, 16, 396)],
)
def test_published_annotations_give_the_leaderboards_figures(
    shared: Path, store: Store, nobody: Judge, name: str, rate: str, error: str, wins: int, draws: int, length: int
) -> None:
    folder = shared / "data/alpaca_eval"
    evaluator = AlpacaEval(
        prompts=folder / "text_davinci_003_outputs.json",
        version=1,
        judge=nobody,
        system="",
        request=PREFERENCE,
        model_outputs=folder / f"{name}_outputs.json",
        annotations=folder / f"{name}_annotations.json",
    )
    evaluator.check()
    found = evaluator.evaluate(small_subject(), work := begun(store, "1"))
    assert (f"{found['v1/win_rate']:.2f}", f"{found['v1/win_rate_stderr']:.2f}") == (rate, error)
    assert (found["v1/wins"], found["v1/draws"], found["v1/avg_length"]) == (wins, draws, length)
    assert found["v1/judged"] == found["v1/asked"] == 805
    assert len(json.loads((work.folder / "model_outputs.json").read_text())) == 805
    again = replace(evaluator, annotations=work.folder / "annotations.json")
    assert again.evaluate(small_subject(), begun(store, "2")) == found


def test_alpaca_eval_judges_and_counts_what_has_no_preference(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server), category="dataset")
        evaluator.check()
        found = evaluator.evaluate(subject, work := begun(store, "1"))
        assert server.billed.total() == 3
    assert (found["v1/asked"], found["v1/judged"], found["v1/wins"], found["v1/losses"]) == (5, 3, 1, 2)
    assert (found["v1/unjudged/no_reference"], found["v1/unjudged/too_long"]) == (1, 1)
    assert found["v1/win_rate"] == pytest.approx(100 / 3)
    assert found["v1/win_rate_stderr"] == pytest.approx(100 * math.sqrt((1 / 9 + 1 / 9 + 4 / 9) / 2 / 3))
    assert (found["v1/dataset=what/asked"], found["v1/dataset=what/wins"], found["v1/dataset=reverse/wins"]) == (
        4,
        0,
        1,
    )
    assert work.notes["calls"]["usd_paid"] == pytest.approx(3 * USD)
    lines = pq.read_table(work.folder / "judgments.parquet").to_pylist()
    assert [line["preference"] for line in lines] == [1.0, 2.0, 1.0, None, None]
    assert [line["reply"].partition("\n")[2] for line in lines] == ["longer"] * 3 + ["", ""]
    assert len({line["own_first"] for line in lines}) == 2, "the order is drawn"
    outputs = json.loads((work.folder / "model_outputs.json").read_text())
    answers = [one["text"] for one in pq.read_table(work.folder / "answers.parquet").to_pylist()]
    assert outputs == [
        {"instruction": question, "output": text, "generator": "srecycle"}
        for question, text in zip(QUESTIONS[:4], answers[:4], strict=True)
    ]
    assert found["v1/avg_length"] == int(sum(map(len, answers[:4])) / 4)


def test_alpaca_eval_tells_a_judge_who_prefers_the_place(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=lambda body: "1") as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        found = evaluator.evaluate(subject, begun(store, "1"))
    first, second = found["v1/shown_first/judged"], found["v1/shown_second/judged"]
    assert (found["v1/shown_first/win_rate"], found["v1/shown_second/win_rate"]) == (100.0, 0.0)
    assert (first, first + second) == (found["v1/wins"], found["v1/judged"])


def test_alpaca_eval_equal_outputs_are_a_draw_and_nobody_is_asked(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        evaluator.evaluate(subject, work := begun(store, "1"))
        ours = json.loads((work.folder / "model_outputs.json").read_text())
        same = jsonl(tmp_path / "same.jsonl", *({**one, "generator": DAVINCI} for one in ours))
        paid = server.billed.total()
        found = replace(evaluator, reference_outputs=same).evaluate(subject, begun(store, "2"))
        assert server.billed.total() == paid
    assert (found["v1/draws"], found["v1/judged"], found["v1/win_rate"], found["v1/win_rate_stderr"]) == (4, 4, 50, 0)


def _annotated(folder: Path, *preferences: Any, **fields: Any) -> Path:
    """Write annotations of the outputs `own 0`, `own 1`, ... to the questions."""
    made = [
        {
            "instruction": question,
            "output_1": "other",
            "output_2": f"own {place}",
            "generator_1": DAVINCI,
            "generator_2": "me",
            "annotator": "alpaca_eval_gpt4",
            "preference": preference,
        }
        | fields
        for place, (question, preference) in enumerate(zip(QUESTIONS, preferences, strict=False))
    ]
    (folder / "annotations.json").write_text(json.dumps(made))
    return folder / "annotations.json"


def _reading(folder: Path, nobody: Judge, annotations: Path) -> AlpacaEval:
    outputs = [{"instruction": one, "output": f"own {place}"} for place, one in enumerate(QUESTIONS)]
    given = jsonl(folder / "outputs.jsonl", *outputs)
    return _evaluator(folder, nobody, reference_outputs=None, model_outputs=given, annotations=annotations)


def test_annotations_draws_missing_and_out_of_range(
    tmp_path: Path, store: Store, subject: Subject, nobody: Judge
) -> None:
    evaluator = _reading(tmp_path, nobody, _annotated(tmp_path, 2, 0, 1.5, 3, math.nan))
    found = evaluator.evaluate(subject, begun(store, "1"))
    assert (found["v1/wins"], found["v1/draws"], found["v1/losses"], found["v1/judged"]) == (1, 2, 0, 3)
    assert (found["v1/unjudged/out_of_range"], found["v1/unjudged/not_annotated"]) == (1, 1)
    assert found["v1/win_rate"] == pytest.approx(100 * (1 + 0.5 + 0.5) / 3)


def test_annotations_of_other_outputs_are_not_this_runs(
    tmp_path: Path, store: Store, subject: Subject, nobody: Judge
) -> None:
    annotations = _annotated(tmp_path, 2, 2, 2)
    given = json.loads(annotations.read_text())
    annotations.write_text(json.dumps([given[0], {**given[1], "output_2": "somebody else's"}]))
    evaluator = _reading(tmp_path, nobody, annotations)
    found = evaluator.evaluate(subject, begun(store, "1"))
    assert (found["v1/wins"], found["v1/judged"], found["v1/asked"]) == (1, 1, 5)
    assert (found["v1/unjudged/other_output"], found["v1/unjudged/not_annotated"]) == (1, 3)
    generated = replace(evaluator, model_outputs=None)
    with pytest.raises(UserError, match="has a preference for none of these 5 outputs"):
        generated.evaluate(subject, begun(store, "2"))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"preference": "2"}, None),
        ({"generator_1": "gpt4_1106_preview"}, "belongs to AlpacaEval 2"),
        ({"annotator": "weighted_alpaca_eval_gpt4_turbo"}, "belongs to AlpacaEval 2"),
    ],
)
def test_annotations_of_the_other_version_are_refused(
    tmp_path: Path, nobody: Judge, record: dict[str, Any], said: str | None
) -> None:
    annotations = _annotated(tmp_path, 2, 2, **record)
    if said is None:
        assert {one.status for one in read_annotations(annotations)} == {"unparsed"}
        return
    with pytest.raises(UserError, match=said):
        _reading(tmp_path, nobody, annotations).check()


def test_versions_are_identity_and_stand_in_every_metric(
    tmp_path: Path, store: Store, subject: Subject, nobody: Judge
) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        keys = [fingerprint(identity(one)) for one in (evaluator, replace(evaluator, batch_tokens=1))]
        changed = (replace(evaluator, request=PREFERENCE + "!"), replace(evaluator, generator="g"))
        keys += [fingerprint(identity(one)) for one in changed]
        assert len(set(keys)) == 3 and keys[0] == keys[1]
        assert all(name.startswith("v1/") for name in evaluator.evaluate(subject, begun(store, "1")))
        jsonl(tmp_path / "reference.jsonl", {"instruction": QUESTIONS[0], "output": "changed"})
        assert fingerprint(identity(evaluator)) != keys[0]
    read_by_two = [_reading(tmp_path, one, _annotated(tmp_path, 2)) for one in (nobody, served_judge(server))]
    assert len({fingerprint(identity(one)) for one in read_by_two}) == 1, "nobody is asked, so it matters not who"


def test_alpaca_eval_wrong_settings_are_refused_before_the_run(tmp_path: Path) -> None:
    with FaultyServer() as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        with pytest.raises(ValidationError, match="output_2"):
            replace(evaluator, request="{instruction} {output_1}")
        with pytest.raises(ValidationError, match="set annotations or reference_outputs, not both"):
            replace(evaluator, annotations=_annotated(tmp_path, 2))
        with pytest.raises(ValidationError, match="difficulty is for"):
            replace(evaluator, difficulty=tmp_path / "set.jsonl")
        with pytest.raises(ValidationError, match="at most 1 item"):
            replace(evaluator, prompts={"a": tmp_path / "set.jsonl", "b": tmp_path / "set.jsonl"})
        with pytest.raises(UserError, match="reference_outputs=null"):
            replace(evaluator, reference_outputs=None).check()
        stranger = jsonl(tmp_path / "stranger.jsonl", {"instruction": "nobody asked", "output": "x"})
        with pytest.raises(UserError, match="has no outputs for these prompts"):
            replace(evaluator, reference_outputs=stranger).check()
        with pytest.raises(UserError, match=r"model_outputs=.* has none for these prompts"):
            replace(evaluator, model_outputs=stranger).check()
        two = [{"instruction": QUESTIONS[0], "output": "x", "generator": name} for name in "ab"]
        with pytest.raises(UserError, match=r"outputs of several models \(a, b\)"):
            replace(evaluator, reference_outputs=jsonl(tmp_path / "two.jsonl", *two)).check()
        for setting in ("reference_outputs", "model_outputs"):
            with pytest.raises(UserError, match=rf"^{setting}=.*nowhere\.json is not a file"):
                replace(evaluator, **{setting: tmp_path / "nowhere.json"}).check()
        with pytest.raises(UserError, match=r"^annotations=.*nowhere\.json is not a file"):
            replace(evaluator, reference_outputs=None, annotations=tmp_path / "nowhere.json").check()
