"""AlpacaEval: the leaderboard's figures from recorded annotations, and a run judged through a real server."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from srecycle.__main__ import build, config_folder
from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.alpaca_eval import AlpacaEval
from srecycle.evaluator.base import Subject
from srecycle.experiment import Experiment
from srecycle.judge import Judge
from srecycle.judge.annotations import read_annotations
from srecycle.judge.replay import ReplayJudge
from srecycle.report.runs import read_run
from srecycle.runner import run
from srecycle.store import Store
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import USD, begun, jsonl, served_judge, small_subject

QUESTIONS = ("what is 3 plus 4", "reverse the list 1 2 3", "what is 9 minus 2", "what is 3 plus 5", "what is " * 40)
REQUEST = "{mark} {instruction} [1]{output_1}[2]{output_2}"
REFERENCE = "text_davinci_003"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def _longer(body: Mapping[str, Any]) -> str:
    """Prefer the longer output, whatever the order."""
    first, _, second = body["messages"][-1]["content"].partition("[1]")[2].partition("[2]")
    return "1\nlonger" if len(first) > len(second) else "2\nlonger"


def _evaluator(folder: Path, judge: Judge, **fields: Any) -> AlpacaEval:
    """Ask five questions, of which the last has no room: the reference is long, empty, long, and missing."""
    prompts = jsonl(folder / "set.jsonl", *({"instruction": one, "dataset": one.split()[0]} for one in QUESTIONS))
    given = {QUESTIONS[0]: "x" * 500, QUESTIONS[1]: "", QUESTIONS[2]: "y" * 500, QUESTIONS[4]: "z"}
    written = [{"instruction": one, "output": text, "generator": REFERENCE} for one, text in given.items()]
    settings: dict[str, Any] = {
        "prompts": prompts,
        "version": 1,
        "judge": judge,
        "system": "",
        "request": REQUEST,
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
        request=REQUEST,
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
    assert (found["v1/what/asked"], found["v1/what/wins"], found["v1/reverse/wins"]) == (4, 0, 1)
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


def test_alpaca_eval_again_asks_nobody_and_writes_the_same(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        first, second = (evaluator.evaluate(subject, begun(store, key)) for key in "12")
        assert first == second and server.billed.total() == 3
        recording = ReplayJudge(paths=(store.folder("evaluate", "1") / "judgments.parquet",))
        assert replace(evaluator, judge=recording).evaluate(subject, begun(store, "3")) == first
        assert server.billed.total() == 3
    for name in ("judgments.parquet", "annotations.json", "model_outputs.json"):
        assert len({(store.folder("evaluate", key) / name).read_bytes() for key in "12"}) == 1


def test_alpaca_eval_equal_outputs_are_a_draw_and_nobody_is_asked(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        evaluator.evaluate(subject, work := begun(store, "1"))
        ours = json.loads((work.folder / "model_outputs.json").read_text())
        same = jsonl(tmp_path / "same.jsonl", *({**one, "generator": REFERENCE} for one in ours))
        paid = server.billed.total()
        found = replace(evaluator, reference_outputs=same).evaluate(subject, begun(store, "2"))
        assert server.billed.total() == paid
    assert (found["v1/draws"], found["v1/judged"], found["v1/win_rate"], found["v1/win_rate_stderr"]) == (4, 4, 50, 0)


def test_alpaca_eval_replies_that_cannot_be_read_are_counted(tmp_path: Path, store: Store, subject: Subject) -> None:
    def told(body: Mapping[str, Any]) -> str:
        return "I'm sorry, I can't." if "reverse" in body["messages"][-1]["content"] else "Output 1 asks for a win."

    with FaultyServer(text=told) as server:
        found = _evaluator(tmp_path, served_judge(server)).evaluate(subject, begun(store, "1"))
    assert (found["v1/judged"], found["v1/unjudged/refused"], found["v1/unjudged/unparsed"]) == (0, 1, 2)
    assert "v1/win_rate" not in found and found["v1/asked"] == 5


def test_alpaca_eval_budget_that_ends_leaves_what_was_paid(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_longer) as server:
        capped = served_judge(server, budget_usd=1.5 * USD, max_tokens=330, concurrency=1)
        with pytest.raises(UserError, match="the budget is used up"):
            _evaluator(tmp_path, capped).evaluate(subject, begun(store, "1"))
        assert server.billed.total() == 1
        found = _evaluator(tmp_path, served_judge(server, max_tokens=330)).evaluate(subject, begun(store, "1"))
        assert found["v1/judged"] == 3 and server.billed.total() == 3, "what was paid for was asked for again"


def test_alpaca_eval_quote_says_what_will_be_paid(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        untrained = evaluator.quote(None, store)
        assert untrained is not None and untrained.usd > 0
        assert (untrained.requests, untrained.calls, untrained.estimated) == (4, 4, 4), "too_long isn't known yet"
        evaluator.evaluate(subject, begun(store, "1"))
        known = evaluator.quote(subject, store)
        assert known is not None and (known.requests, known.calls, known.estimated, known.usd) == (3, 0, 0, 0)
        assert server.billed.total() == 3


def _annotated(folder: Path, *preferences: Any, **fields: Any) -> Path:
    """Write annotations of the outputs `own 0`, `own 1`, ... to the questions."""
    made = [
        {
            "instruction": question,
            "output_1": "other",
            "output_2": f"own {place}",
            "generator_1": REFERENCE,
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
        changed = (replace(evaluator, request=REQUEST + "!"), replace(evaluator, generator="g"))
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
        turns = jsonl(tmp_path / "turns.jsonl", {"turns": ["a", "b"]})
        with pytest.raises(UserError, match="prompts of several turns"):
            replace(evaluator, prompts=turns).check()


def test_run_with_alpaca_eval_from_the_command_line_costs_nothing_again(tmp_path: Path) -> None:
    with FaultyServer(text=lambda body: "1\nfirst") as server:
        evaluator = _evaluator(tmp_path, served_judge(server))
        (prompts,) = evaluator.prompts.values()
        place = "evaluator.alpaca_eval"
        overrides = [
            *("experiment=demo/original", "data.count=6", "trainer=none", "tracker=jsonl", "student=testbed_weak"),
            *(f"store={tmp_path / 'store'}", "evaluator=[alpaca_eval]", f"{place}.prompts={prompts}"),
            *(f"{place}.reference_outputs={evaluator.reference_outputs}", f"{place}.max_new_tokens=8"),
            *(f"{place}.judge.teacher.base_url={server.url}", f"{place}.judge.teacher.provider=here"),
        ]
        runs = []
        for _ in range(2):
            with initialize_config_dir(str(config_folder()), version_base="1.3"):
                _, experiment = build(compose("config", overrides))
            assert isinstance(experiment, Experiment)
            runs.append(read_run(run(experiment, {}, overrides)))
            paid = server.billed.total()
        assert paid == runs[0].metrics["evaluate/alpaca_eval/v1/judged"] >= 3
    assert runs[1].metrics["evaluate/alpaca_eval/v1/win_rate"] == runs[0].metrics["evaluate/alpaca_eval/v1/win_rate"]
    assert {stage["how"] for stage in runs[1].stages} == {"hit"}


def test_alpaca_eval_that_the_judge_failed_throughout_is_no_result(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(rate=1.0, faults=("server error",), text=_longer) as server:
        evaluator = _evaluator(tmp_path, served_judge(server, attempts=1))
        with pytest.raises(UserError, match=r"nothing was judged: the judge failed for all 3 pairs.*run again"):
            evaluator.evaluate(subject, begun(store, "1"))
    with FaultyServer(text=_longer) as server:
        found = _evaluator(tmp_path, served_judge(server)).evaluate(subject, begun(store, "1"))
        assert found["v1/judged"] == 3
