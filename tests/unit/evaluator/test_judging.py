"""What holds for every evaluator that puts answers before a judge: through a real server, and from a recording."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from srecycle.compose import build, config_folder
from srecycle.config import fingerprint, identity
from srecycle.errors import UserError
from srecycle.evaluator.base import Subject
from srecycle.experiment import Experiment
from srecycle.judge.replay import ReplayJudge
from srecycle.reflection.quote import Quote
from srecycle.report.runs import read_run
from srecycle.report.screen import show_plan
from srecycle.runner import PlannedStage, run
from srecycle.store import Store
from tests.faulty_server import FaultyServer
from tests.unit.evaluator.judging import KINDS, USD, Kind, begun, jsonl, served_judge, small_subject


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return small_subject()


def test_judging_again_or_from_a_recording_asks_nobody_and_tells_the_same(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    evaluator = kind.build(tmp_path, served_judge(server))
    evaluator.check()
    first, second = (evaluator.evaluate(subject, begun(store, key)) for key in "12")
    assert first[f"{kind.head}/{kind.figure}"] == kind.value and first[f"{kind.head}/judged"] == kind.items
    recording = ReplayJudge(paths=(store.folder("evaluate", "1") / "judgments.parquet",))
    assert replace(evaluator, judge=recording).evaluate(subject, begun(store, "3")) == first == second
    assert server.billed.total() == kind.calls
    names = {file.name for file in store.folder("evaluate", "1").iterdir() if file.is_file()}
    assert "judgments.parquet" in names
    for name in names:
        assert len({(store.folder("evaluate", key) / name).read_bytes() for key in "12"}) == 1, name


def test_judging_replies_that_cannot_be_read_are_counted(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(body: Mapping[str, Any]) -> str:
        whole = body["messages"][-1]["content"]
        return "I'm sorry, I can't say." if "reverse" in whole else "The answer asks for a ten, or for a 1."

    with FaultyServer(text=told) as server:
        evaluator = kind.build(tmp_path, served_judge(server))
        found = evaluator.evaluate(subject, work := begun(store, "1"))
    assert (found[f"{kind.head}/asked"], found[f"{kind.head}/judged"]) == (kind.items, 0)
    assert found[f"{kind.head}/unjudged/refused"] + found[f"{kind.head}/unjudged/unparsed"] == kind.items
    assert found[f"{kind.head}/unjudged/refused"] >= 1 and f"{kind.head}/{kind.figure}" not in found
    assert f"0 judged of {kind.items} asked; no verdict: " in capsys.readouterr().err
    lines = pq.read_table(work.folder / "judgments.parquet").to_pylist()
    assert {line["reply"] for line in lines} == {"I'm sorry, I can't say.", "The answer asks for a ten, or for a 1."}


def test_judging_budget_that_ends_leaves_what_was_paid(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    capped = served_judge(server, budget_usd=1.5 * USD, max_tokens=330, concurrency=1)
    with pytest.raises(UserError, match="the budget is used up"):
        kind.build(tmp_path, capped).evaluate(subject, begun(store, "1"))
    assert server.billed.total() == 1
    found = kind.build(tmp_path, served_judge(server, max_tokens=330)).evaluate(subject, begun(store, "1"))
    assert found[f"{kind.head}/judged"] == kind.items
    assert server.billed.total() == kind.calls, "what was paid for was asked for again"


def test_judging_quote_says_what_will_be_paid(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind, server: FaultyServer
) -> None:
    evaluator = kind.build(tmp_path, served_judge(server))
    untrained = evaluator.quote(None, store)
    assert untrained is not None and untrained.usd > 0
    assert (untrained.requests, untrained.calls, untrained.estimated) == (kind.calls,) * 3
    evaluator.evaluate(subject, begun(store, "1"))
    known = evaluator.quote(subject, store)
    assert known is not None
    assert (known.requests, known.calls, known.found, known.estimated, known.usd) == (kind.calls, 0, kind.calls, 0, 0)
    assert server.billed.total() == kind.calls


def test_judging_that_failed_throughout_is_no_result(
    tmp_path: Path, store: Store, subject: Subject, kind: Kind
) -> None:
    with FaultyServer(rate=1.0, faults=("server error",), text=kind.told) as server:
        evaluator = kind.build(tmp_path, served_judge(server, attempts=1))
        with pytest.raises(UserError, match=rf"the judge failed for all {kind.items} {evaluator.what}.*run again"):
            evaluator.evaluate(subject, begun(store, "1"))
    with FaultyServer(text=kind.told) as server:
        found = kind.build(tmp_path, served_judge(server)).evaluate(subject, begun(store, "1"))
        assert found[f"{kind.head}/judged"] == kind.items


def test_judging_identity_is_content_judge_wording_and_probes(tmp_path: Path, kind: Kind, server: FaultyServer) -> None:
    evaluator = kind.build(tmp_path, served_judge(server))
    others = [
        replace(evaluator, batch_tokens=1),
        replace(evaluator, judge=served_judge(server, model="n")),
        replace(evaluator, **{kind.wording: getattr(evaluator, kind.wording) + "!"}),
        replace(evaluator, max_new_tokens=9),
        replace(evaluator, probes=("padding",)),
    ]
    keys = [fingerprint(identity(one)) for one in (evaluator, *others)]
    assert keys[0] == keys[1] and len(set(keys)) == 5
    (path,) = evaluator.prompts.values()
    path.write_text(path.read_text() + "\n")
    assert fingerprint(identity(evaluator)) != keys[0]


def test_judging_errors_name_the_setting_of_the_file(tmp_path: Path, kind: Kind, server: FaultyServer) -> None:
    evaluator = kind.build(tmp_path, served_judge(server))
    nowhere = tmp_path / "nowhere.jsonl"
    wrong = {
        "prompts": replace(evaluator, prompts={"v": nowhere}),
        r"judge\.paths": replace(evaluator, judge=ReplayJudge(paths=(nowhere,))),
    }
    for setting, one in wrong.items():
        for step in (one.check, lambda one=one: identity(one)):  # a key is made of contents before anything is checked
            with pytest.raises(UserError, match=rf"^{setting}=.*nowhere\.jsonl is not a file"):
                step()
    turns = jsonl(tmp_path / "turns.jsonl", {"turns": ["a", "b", "c"], "category": "c"})
    with pytest.raises(UserError, match=r"turns\.jsonl: prompt 0 has 3 turns: at most . can be judged"):
        replace(evaluator, prompts={"v": turns}).check()


def test_run_that_is_judged_from_the_command_line_costs_nothing_again(
    tmp_path: Path, kind: Kind, server: FaultyServer, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["kind"]
    runs = []
    for _ in range(2):
        runs.append(read_run(run(_experiment(tmp_path, name, kind, server), {}, [])))
        paid = server.billed.total()
    assert paid == kind.calls
    metric = f"evaluate/{name}/{kind.head}/{kind.figure}"
    assert runs[1].metrics[metric] == runs[0].metrics[metric] == kind.value
    assert {stage["how"] for stage in runs[1].stages} == {"hit"}
    assert [one.metrics["cost/calls_paid"] for one in runs] == [kind.calls, 0]


def test_run_one_failed_judge_does_not_lose_the_other_evaluations(tmp_path: Path) -> None:
    name, kind = "mt_bench", KINDS["mt_bench"]
    with FaultyServer() as server:
        pass  # it is gone when it is asked
    judge = f"evaluator.{name}.judge.teacher"
    broken = [f"{judge}.attempts=1", f"{judge}.keep_failed=false"]
    (asked,) = kind.build(tmp_path, served_judge(server)).prompts.values()
    both = [f"evaluator=[{name},answers]", f"evaluator.answers.prompts={{v: {asked}}}"]
    with pytest.raises(UserError, match=f"evaluate/{name} failed, the rest is made"):
        run(_experiment(tmp_path, name, kind, server, *both, "evaluator.answers.max_new_tokens=8", *broken), {}, [])
    (last,) = (tmp_path / "store/runs").iterdir()
    assert read_run(last).status == "failed" and read_run(last).metrics["evaluate/answers/v/answers"] == kind.items


def test_plan_tells_the_bills_of_the_teacher_and_of_each_judge_apart(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        "reflect_response": ("reflect", 7),
        "evaluate/pairwise": ("evaluate", 5),
        "evaluate/mt_bench": ("evaluate", 0),
    }
    stages = [
        PlannedStage(
            label=label,
            stage=stage,
            key="k" * 32,
            how="run",
            changed=[],
            quote=Quote(requests=9, found=9 - calls, calls=calls),
        )
        for label, (stage, calls) in asked.items()
    ]
    show_plan(stages)
    said = " ".join(capsys.readouterr().out.split())
    assert "The teacher would be sent 7 paid requests (2 more cost nothing)" in said
    assert "The judge of evaluate/pairwise would be sent 5 paid requests (4 more cost nothing)" in said
    assert "The judge of evaluate/mt_bench would be asked 9 times, none of which is paid for now." in said


def _experiment(folder: Path, name: str, kind: Kind, server: FaultyServer, *overrides: str) -> Experiment:
    """Compose an untuned student of the micro-world that is evaluated as the kind's own evaluator."""
    evaluator = kind.build(folder, served_judge(server))
    place = f"evaluator.{name}"
    files = {
        setting: getattr(evaluator, setting)
        for setting in ("against", "reference_outputs", "reference_answers")
        if hasattr(evaluator, setting)
    }
    more = [f"{place}.reference_categories=[math]"] if name == "mt_bench" else []
    wordings = [f"{place}.{kind.wording}='{getattr(evaluator, kind.wording)}'"] if name != "mt_bench" else []
    prompts = ", ".join(f"{key}: {path}" for key, path in evaluator.prompts.items())
    given = [
        *("experiment=demo/original", "data.count=6", "trainer=none", "tracker=jsonl", "student=testbed_weak"),
        *(f"store={folder / 'store'}", f"evaluator=[{name}]", f"{place}.prompts={{{prompts}}}"),
        *(f"{place}.{setting}={path}" for setting, path in files.items()),
        *(f"{place}.max_new_tokens=8", f"{place}.judge.teacher.base_url={server.url}", *more, *wordings),
        f"{place}.judge.teacher.provider=here",
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        _, experiment = build(compose("config", [*given, *overrides]))
    assert isinstance(experiment, Experiment)
    return experiment
