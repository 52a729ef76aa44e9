"""Two runs compared by a judge: through a real server, a recording, and the whole chain."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from srecycle.compose import build, config_folder
from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.evaluator.pairwise import Pairwise
from srecycle.experiment import Experiment
from srecycle.judge import Judge
from srecycle.judge.replay import ReplayJudge
from srecycle.report.runs import Run, read_run
from srecycle.runner import planned, run
from srecycle.store import Store
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import PAIR, USD, begun, jsonl, served_judge, shown, small_subject

QUESTIONS = ("what is 3 plus 4", "reverse the list 1 2 3", "what is 9 minus 2", "what is 3 plus 4")


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def _prefers_longer(body: Mapping[str, Any]) -> str:
    """Judge by length, whatever the order."""
    first, second = shown(body).partition("<1>")[2].split("<2>")
    return f"{9 if len(first) > len(second) else 5} {9 if len(second) > len(first) else 5}\nlength"


def _pairwise(folder: Path, judge: Judge, **fields: Any) -> Pairwise:
    """Compare on two sets: three questions, to which the other gave longer, no, and no answers; and one."""
    prompts = {
        "v": jsonl(folder / "v.jsonl", *({"text": one, "kind": one.split()[0]} for one in QUESTIONS[:3])),
        "w": jsonl(folder / "w.jsonl", {"instruction": QUESTIONS[3]}),
    }
    given = [{"text": QUESTIONS[0], "output": "x" * 500}, {"text": QUESTIONS[1], "output": ""}]
    settings: dict[str, Any] = {
        "prompts": prompts,
        "against": str(jsonl(folder / "other.jsonl", *given)),
        "judge": judge,
        "system": "",
        "request": PAIR,
        "store": folder / "store",
        "max_new_tokens": 8,
    }
    return Pairwise(**settings | fields)


def test_pairwise_counts_verdicts_and_what_has_none(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_prefers_longer) as server:
        found = _pairwise(tmp_path, served_judge(server)).evaluate(subject, work := begun(store, "1"))
        assert server.billed.total() == 4, "two orders of two different pairs: one stands in both sets"
    assert (found["v/asked"], found["v/judged"], found["v/win"], found["v/lose"]) == (3, 2, 1, 1)
    assert found["v/unjudged/no_other_answer"] == 1 and found["v/win_rate"] == 1.0 and found["v/agreement"] == 1.0
    assert (found["w/lose"], found["w/win_rate"], found["w/length/winners"]) == (1, 0.0, 500)
    assert (found["all/asked"], found["all/judged"]) == (4, 3) and found["all/win_rate"] == pytest.approx(2 / 3)
    judgments = pq.read_table(work.folder / "judgments.parquet").to_pylist()
    assert [line["set"] for line in judgments] == ["v"] * 5 + ["w"] * 2
    assert [line["reply"] for line in judgments if line["status"] == "ok"].count("5 9\nlength") == 3
    assert work.notes["calls"]["usd_paid"] == pytest.approx(4 * USD)


def test_pairwise_by_category_tells_each(tmp_path: Path, store: Store, subject: Subject) -> None:
    with FaultyServer(text=_prefers_longer) as server:
        evaluator = _pairwise(tmp_path, served_judge(server), category="kind")
        with pytest.raises(UserError, match=r"w\.jsonl has no column 'kind'"):
            evaluator.check()
        found = replace(evaluator, prompts={"v": tmp_path / "v.jsonl"}).evaluate(subject, begun(store, "1"))
    assert (found["v/kind=what/asked"], found["v/kind=what/lose"], found["v/kind=reverse/win"]) == (2, 1, 1)
    assert not any(name.startswith("all/") for name in found)


def test_pairwise_gap_is_the_pooled_win_rate_in_domain_less_that_out_of_it(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=_prefers_longer) as server:
        evaluator = _pairwise(tmp_path, served_judge(server), gap={"in_domain": ["v"], "out_of_distribution": ["w"]})
        found = evaluator.evaluate(subject, begun(store, "1"))
    assert (found["gap/in_domain/win_rate"], found["gap/out_of_distribution/win_rate"]) == (1.0, 0.0)
    assert found["gap/in_domain/asked"] == 3 and found["gap/win_rate"] == 1.0
    assert found["gap/win_rate_stderr"] == pytest.approx(found["v/win_rate_stderr"])
    plain = replace(evaluator, gap=None)
    assert fingerprint(identity(plain)) != fingerprint(identity(evaluator))
    for gap, said in (
        ({"in_domain": ["v"]}, "no sets out_of_distribution"),
        ({"in_domain": ["v"], "out_of_distribution": ["x"]}, "'x', which is no set of prompts: there are v, w"),
        ({"in_domain": ["v"], "out_of_distribution": ["w", "v"]}, "v stands twice"),
        ({"near": ["v"]}, "in_domain"),
    ):
        with pytest.raises(ValidationError, match=said):
            _pairwise(tmp_path, ReplayJudge(paths=(tmp_path / "v.jsonl",)), gap=gap)


def test_pairwise_compares_with_the_answers_that_an_evaluation_kept(
    tmp_path: Path, store: Store, subject: Subject
) -> None:
    with FaultyServer(text=_prefers_longer) as server:
        evaluator = _pairwise(tmp_path, served_judge(server))
        evaluator.evaluate(subject, work := begun(store, "1"))
        kept = replace(evaluator, against=str(work.folder / "answers.parquet"))
        kept.check()
        found = kept.evaluate(subject, begun(store, "2"))
    assert (found["all/asked"], found["all/tie"], found["all/win_rate"]) == (4, 4, 1.0)


def test_pairwise_set_that_cannot_be_judged_leaves_the_others_paid_replies(
    tmp_path: Path, store: Store, subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with FaultyServer(text=_prefers_longer) as server:
        judge = served_judge(server, budget_usd=1.5 * USD, max_tokens=330, concurrency=1)
        evaluator = _pairwise(tmp_path, judge)
        order = {"w": evaluator.prompts["w"], "v": evaluator.prompts["v"]}
        with pytest.raises(UserError, match=r"2 of 2 sets could not be judged; the first is w: the budget is used up"):
            replace(evaluator, prompts=order).evaluate(subject, begun(store, "1"))
        paid = server.billed.total()
        assert paid == 1 and "v: not judged" in capsys.readouterr().err
        found = _pairwise(tmp_path, served_judge(server, max_tokens=330)).evaluate(subject, begun(store, "1"))
        assert found["all/judged"] == 3 and server.billed.total() == 4, "what was paid for was asked for again"


def test_pairwise_identity_is_content_judge_and_wording(tmp_path: Path, store: Store) -> None:
    with FaultyServer() as server:
        evaluator = _pairwise(tmp_path, served_judge(server))
        moved = tmp_path / "moved.jsonl"
        moved.write_bytes((tmp_path / "other.jsonl").read_bytes())
        same = [
            replace(evaluator, against=str(moved)),
            replace(evaluator, batch_tokens=1),
            replace(evaluator, store=tmp_path),
        ]
        others = [
            replace(evaluator, judge=served_judge(server, model="n")),
            replace(evaluator, request=PAIR + "!"),
            replace(evaluator, max_new_tokens=9),
        ]
        keys = [fingerprint(identity(one)) for one in (evaluator, *same, *others)]
        assert len(set(keys[:4])) == 1 and len(set(keys)) == 4
        jsonl(tmp_path / "other.jsonl", {"text": QUESTIONS[0], "output": "changed"})
        assert fingerprint(identity(evaluator)) != keys[0]


def test_pairwise_wrong_settings_are_refused_before_the_run(tmp_path: Path, store: Store) -> None:
    with FaultyServer() as server:
        evaluator = _pairwise(tmp_path, served_judge(server))
        with pytest.raises(ValidationError, match="answer_2"):
            replace(evaluator, request="{mark} {question} {answer_1}")
        with pytest.raises(ValidationError, match="a set named 'all'"):
            replace(evaluator, prompts={"all": evaluator.prompts["v"], "w": evaluator.prompts["w"]})
        with pytest.raises(UserError, match=r"no finished run nobody"):
            replace(evaluator, against="nobody").check()
        with pytest.raises(UserError, match=r"^against=.*nowhere\.json is not a file"):
            replace(evaluator, against=str(tmp_path / "nowhere.json")).check()
        stranger = jsonl(tmp_path / "stranger.jsonl", {"text": "nobody asked", "output": "x"})
        with pytest.raises(UserError, match="has no answers to the prompts of v, w"):
            replace(evaluator, against=str(stranger)).check()


Go = Callable[..., Run]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Return a function that runs an untuned student from command line overrides, and reads the run back."""

    def gone(*overrides: str) -> Run:
        return read_run(run(_experiment(tmp_path, *overrides), {}, list(overrides)))

    return gone


def _experiment(folder: Path, *overrides: str) -> Experiment:
    small = ("experiment=demo/original", "data.count=6", "trainer=none", "tracker=jsonl", f"store={folder / 'store'}")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        _, experiment = build(compose("config", [*small, *overrides]))
    assert isinstance(experiment, Experiment)
    return experiment


def _asked(folder: Path, name: str, server: FaultyServer | None = None) -> list[str]:
    """Return the overrides that ask an evaluator's questions, and its judge where there is one."""
    file = jsonl(folder / "questions.jsonl", *({"text": one} for one in QUESTIONS))
    place = f"evaluator.{name}"
    asked = [f"{place}.prompts={{v: {file}}}", f"{place}.max_new_tokens=8"]
    if server is None:
        return [f"evaluator=[{name}]", *asked]
    judge = f"{place}.judge.teacher"
    prices = (f"{judge}.usd_per_million_input_tokens=2", f"{judge}.usd_per_million_output_tokens=10")
    return [*asked, f"{place}.against=base", f"{judge}.base_url={server.url}", f"{judge}.provider=here", *prices]


def _by_hash(body: Mapping[str, Any]) -> str:
    digits = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    return f"{digits[0] % 10 + 1} {digits[1] % 10 + 1}"


def test_run_is_compared_with_another_run_and_costs_nothing_again(tmp_path: Path, go: Go) -> None:
    base = go("name=base", "student=testbed_weak", *_asked(tmp_path, "answers"))
    with FaultyServer(text=_by_hash) as server:
        other = ("student=testbed_strong", "evaluator=[pairwise]", *_asked(tmp_path, "pairwise", server))
        (plan,) = [one for one in planned(_experiment(tmp_path, *other)) if one.label == "evaluate/pairwise"]
        assert plan.quote is not None and plan.quote.calls > 0 and server.billed.total() == 0
        first = go("name=own", *other)
        calls = server.billed.total()
        again = go("name=own", *other)
        by_id = go("name=own", *other, f"evaluator.pairwise.against={base.id}")
        assert server.billed.total() == calls == 6, "four questions, one of them twice, in two orders"
    assert first.metrics["evaluate/pairwise/v/judged"] == first.metrics["evaluate/pairwise/v/asked"] == 4
    assert [stage["how"] for stage in again.stages] == ["hit"] * len(again.stages)
    assert [stage["key"] for stage in by_id.stages] == [stage["key"] for stage in first.stages]
    names = ("cost/usd", "cost/usd_judged", "cost/usd_paid", "cost/calls_paid")
    assert [first.metrics[name] for name in names] == pytest.approx([6 * USD, 6 * USD, 6 * USD, 6])
    assert [again.metrics[name] for name in names] == pytest.approx([6 * USD, 6 * USD, 0, 0])


def test_run_that_answered_otherwise_or_not_at_all_is_no_opponent(tmp_path: Path, go: Go) -> None:
    go("name=silent", "student=testbed_weak", "until=assemble")
    go("name=base", "student=testbed_weak", *_asked(tmp_path, "answers"), "evaluator.answers.max_new_tokens=9")
    with FaultyServer() as server:
        asked = ("evaluator=[pairwise]", *_asked(tmp_path, "pairwise", server))
        with pytest.raises(UserError, match=r"answered with other settings \(max_new_tokens: 9 there, 8 here\)"):
            go("name=own", *asked)
        with pytest.raises(UserError, match="kept no answers: run it again with evaluator=answers"):
            go("name=own", *asked, "evaluator.pairwise.against=silent")
        with pytest.raises(UserError, match=r"has no finished run bose \(did you mean base\?\)"):
            go("name=own", *asked, "evaluator.pairwise.against=bose")
