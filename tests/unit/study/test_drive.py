"""The driver: jobs in worker processes, resumed, and gone on with after failures and kills."""

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from srecycle.errors import UserError
from srecycle.report.runs import Run, read_runs
from srecycle.study.drive import Driver, failures
from srecycle.study.jobs import Place, Result, run_job
from srecycle.study.plan import Plan, read_plan

# Nothing is scored or trained: the originals as they are, and a draw among them.
PLAN = """
name = "try"
common = ["tracker=none", "data.count=12", "data.world_seed={seed}", "until=assemble"]
[factors]
seed = [0, 1]
[arms]
few = { set = ["experiment=paper/table4_original", "keep=[top_random]", "keep.top_random.fraction=0.4"] }
"as many" = { set = ["experiment=demo/original", "keep=[top_random]", "keep.top_random.seed=9"], rows_of = "few" }
beyond = { set = ["experiment=paper/table4_original", "data.positions=[99]"] }
"as many as beyond" = { set = ["keep=[top_random]"], rows_of = "beyond" }
large = { set = ["experiment=paper/table4_original", "data.count=400000"] }
[[blocks]]
name = "main"
arms = ["few", "as many"]
"""


def _plan(tmp_path: Path, arms: str = "", seeds: str = "[0, 1]") -> Plan:
    text = PLAN.replace("seed = [0, 1]", f"seed = {seeds}")
    (tmp_path / "study.toml").write_text(text.replace('["few", "as many"]', arms or '["few", "as many"]'))
    return read_plan(tmp_path)


def _driven(plan: Plan, tmp_path: Path, at_once: int = 1) -> Driver:
    driver = Driver(plan=plan, place=Place(store=tmp_path / "store", name=plan.name), at_once=at_once)
    driver.run()
    return driver


def _runs(plan: Plan, driver: Driver) -> dict[str, Run]:
    found = {run.id: run for run in read_runs(driver.place.store)}
    return {plan.jobs[name].label: found[one.runs[-1]] for name, one in driver.results.items() if one.runs}


def test_driver_runs_each_job_once_and_gives_an_arm_as_many_rows_as_another_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = _plan(tmp_path)
    runs = _runs(plan, first := _driven(plan, tmp_path, at_once=2))
    assert len(runs) == 4 and all(run.status == "finished" and run.group == "try" for run in runs.values())
    for seed in (0, 1):
        few, other = (runs[f"main seed={seed} {arm}"] for arm in ("few", "as many"))
        assert few.metrics["assemble/kept"] == other.metrics["assemble/kept"] == 5  # 0.4 of 12
        assert few.artifact("assemble") != other.artifact("assemble")
        assert few.choices["job"] in first.results and few.choices["trainer"] == "testbed"
    said = capfd.readouterr().err
    assert "try: 0 of 4 runs are done" in said and "[4/4] main seed=" in said and "about 0 min left" in said
    again = _driven(plan, tmp_path)
    assert again.results == first.results and len(read_runs(tmp_path / "store")) == 4
    assert "try: 4 of 4 runs are done" in capfd.readouterr().err


def test_driver_failures_stop_nothing_else_and_are_tried_again(tmp_path: Path) -> None:
    plan = _plan(tmp_path, '["beyond", "as many as beyond", "few"]', seeds="[0]")
    driver = _driven(plan, tmp_path, at_once=2)  # the second worker can't begin with what follows another's
    assert [plan.jobs[name].label for name, one in driver.results.items() if one.status == "finished"] == [
        "main seed=0 few"
    ]
    told = failures(plan, driver.results)
    assert "data.positions names 99" in told["main seed=0 beyond"]
    assert "the run whose count of rows it takes failed: " in told["main seed=0 as many as beyond"]
    before = len(read_runs(tmp_path / "store"))
    assert failures(plan, _driven(plan, tmp_path).results) == told
    assert len(read_runs(tmp_path / "store")) == before + 1  # the one that can be begun at all


def test_driver_second_one_on_the_same_study_is_refused(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    held = Driver(plan=plan, place=Place(store=tmp_path / "store", name=plan.name), at_once=1)
    with held._held(), pytest.raises(UserError, match="is being worked on by another process"):
        _driven(plan, tmp_path)


def _killed_at(label: str, log: Path, names: list[int]) -> None:
    """Kill the worker as soon as it is at a job."""
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        if log.is_file() and label in log.read_text():
            (worker,) = multiprocessing.active_children()
            names.append(worker.pid or 0)
            os.kill(worker.pid or 0, signal.SIGKILL)
            return
        time.sleep(0.02)


def test_driver_worker_that_is_killed_costs_its_job_alone(tmp_path: Path) -> None:
    plan = _plan(tmp_path, '["large", "few"]', seeds="[0]")
    killed: list[int] = []
    log = tmp_path / "store/studies/try/logs/0.log"
    threading.Thread(target=_killed_at, args=("main seed=0 large", log, killed), daemon=True).start()
    driver = _driven(plan, tmp_path)
    assert killed
    status = {plan.jobs[name].label: (one.status, one.reason) for name, one in driver.results.items()}
    assert status["main seed=0 few"] == ("finished", "")
    failed, reason = status["main seed=0 large"]
    assert failed == "failed" and "its process ended by SIGKILL" in reason and "0.log says why" in reason
    file = driver.place.folder / "jobs" / f"{next(iter(plan.jobs))}.json"
    assert json.loads(file.read_text())["status"] == "failed"


def test_run_job_leaves_a_result_that_names_its_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRECYCLE_STORE", str(tmp_path / "store"))
    plan, place = _plan(tmp_path), Place(store=tmp_path / "store", name="try")
    job = next(iter(plan.jobs.values()))
    result = run_job(job, place)
    place.folder.joinpath("jobs").mkdir(parents=True)
    place.write(result)
    assert place.results(plan.jobs) == {job.id: result}
    assert place.kept(result) == 5 and result.cpu_seconds > 0
    for file in (tmp_path / "store/runs" / result.runs[0]).iterdir():
        file.unlink()
    assert place.results(plan.jobs) == {}  # its run was removed: it is to be made again


def test_place_result_of_a_failed_job_is_kept_with_its_reason(tmp_path: Path) -> None:
    plan, place = _plan(tmp_path), Place(store=tmp_path / "store", name="try")
    place.folder.joinpath("jobs").mkdir(parents=True)
    name = next(iter(plan.jobs))
    place.write(Result(id=name, status="failed", reason="no"))
    assert place.results(plan.jobs)[name].reason == "no"
