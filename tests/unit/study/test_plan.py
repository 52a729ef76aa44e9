"""Plans of studies: what a file becomes, and what is refused in a line."""

import json
from collections import Counter
from pathlib import Path

import hydra
import pytest

from srecycle.compose import PACKAGE, build
from srecycle.errors import UserError
from srecycle.study.plan import Plan, read_plan
from srecycle.study.sweep import composing
from tests.conftest import ROOT

STUDIES = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/study.toml"))
PLAN = """
name = "try"
minutes = 5
common = ["data.count={rows}", "seed={seed}"]
train = ["trainer=testbed", "trainer.max_steps={steps}"]
[parameters]
rows = 30
steps = 7
[factors]
seed = [0, 1]
teacher = ["good", "bad"]
[sets.teacher]
good = ["teacher=scripted"]
bad = ["teacher=scripted_sloppy"]
[arms]
a = { set = ["experiment=demo/selective"] }
"as many" = { set = ["keep=[top_random]"], rows_of = "a" }
plain = { set = ["experiment=demo/untuned", "data.count=99"], train = [] }
[[blocks]]
name = "main"
arms = ["a", "as many"]
[[blocks]]
name = "more"
arms = ["a", "plain"]
factors = { seed = [1], teacher = ["good"], order = ["source", "shuffled"] }
set = ["trainer.order={order}"]
[small]
minutes = 1
parameters = { rows = 4 }
factors = { seed = [1], order = ["shuffled"] }
"""


def _plan(tmp_path: Path, text: str = PLAN, **options: object) -> Plan:
    (tmp_path / "study.toml").write_text(text)
    return read_plan(tmp_path, **options)  # type: ignore[arg-type]


def _of(plan: Plan, block: str, arm: str, **factors: str) -> tuple[str, ...]:
    (cell,) = [
        one
        for one in plan.cells
        if one.block == block and one.arm == arm and dict(one.factors) | factors == one.factors
    ]
    return plan.jobs[cell.job].overrides


def test_plan_crosses_arms_with_factors_the_first_slowest(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    main = [(cell.factors["seed"], cell.factors["teacher"], cell.arm) for cell in plan.cells if cell.block == "main"]
    assert main == [(seed, teacher, arm) for seed in "01" for teacher in ("good", "bad") for arm in ("a", "as many")]
    assert _of(plan, "main", "a", seed="1", teacher="bad") == (
        *("data.count=30", "seed=1", "teacher=scripted_sloppy", "experiment=demo/selective"),
        *("trainer=testbed", "trainer.max_steps=7"),
    )


def test_plan_block_replaces_factors_and_adds_some_and_what_comes_last_counts(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert [dict(cell.factors) for cell in plan.cells if cell.block == "more" and cell.arm == "a"] == [
        {"seed": "1", "teacher": "good", "order": order} for order in ("source", "shuffled")
    ]
    own = _of(plan, "more", "plain", order="source")
    assert own[0] == "data.count=99" and "trainer=testbed" not in own and "trainer.order=source" in own


def test_plan_what_a_factor_sets_counts_more_than_its_blocks_and_the_arms_most(tmp_path: Path) -> None:
    """A block lays a ground that a factor's values depart from."""
    text = PLAN.replace('bad = ["teacher=scripted_sloppy"]', 'bad = ["teacher.drifts=0.3", "trainer.rank=1"]')
    text = text.replace('name = "main"\n', 'name = "main"\nset = ["teacher.drifts=0", "trainer.rank=2"]\n')
    text = text.replace('a = { set = ["', 'a = { set = ["trainer.rank=3", "')
    plan = _plan(tmp_path, text)
    assert {"teacher.drifts=0.3", "trainer.rank=3"} < set(_of(plan, "main", "a", seed="0", teacher="bad"))
    assert "trainer.rank=1" in _of(plan, "main", "as many", seed="0", teacher="bad")
    assert "teacher.drifts=0" in _of(plan, "main", "as many", seed="0", teacher="good")


def test_plan_equal_overrides_are_one_job(tmp_path: Path) -> None:
    same = PLAN.replace('set = ["trainer.order={order}"]', "")
    plan = _plan(tmp_path, same)
    shared = {cell.job for cell in plan.cells if cell.arm == "a" and cell.factors["seed"] == "1"}
    assert len(shared) == 2 and len(plan.jobs) < len(plan.cells)  # two teachers; the orders say nothing


def test_plan_arm_of_equal_rows_knows_the_job_that_it_follows_and_changes_with_it(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    cells = {(cell.arm, cell.factors["seed"], cell.factors["teacher"]): cell.job for cell in plan.cells}
    followed = plan.jobs[cells["as many", "0", "bad"]].rows_of
    assert followed == cells["a", "0", "bad"]
    assert list(plan.jobs).index(followed) < list(plan.jobs).index(cells["as many", "0", "bad"])
    other = _plan(tmp_path, PLAN.replace("demo/selective", "demo/random"))
    assert cells["as many", "0", "bad"] not in other.jobs


def test_plan_small_and_given_parameters_change_the_jobs(tmp_path: Path) -> None:
    small = _plan(tmp_path, small=True)
    assert (small.name, small.minutes) == ("try-small", 1)
    assert {cell.factors["seed"] for cell in small.cells} == {"1"}
    assert [cell.factors["order"] for cell in small.cells if cell.block == "more"] == ["shuffled", "shuffled"]
    assert "data.count=4" in _of(small, "main", "a", teacher="good")
    given = _plan(tmp_path, small=True, given={"rows": "3"})
    assert "data.count=3" in _of(given, "main", "a", teacher="good")
    assert {cell.arm for cell in small.cells if cell.job in given.jobs} == {"plain"}  # it has rows of its own


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[factors]", "[factor]"), "has the key factor, which is not known"),
        (("good = [", "fine = ["), "sets has no teacher.good"),
        (('arms = ["a", "plain"]', 'arms = ["b"]'), "block more has the arm b; there are: a, as many, plain"),
        (("{rows}", "{row}"), "data.count={row} has {row}, which is neither a parameter nor a factor"),
        (('rows_of = "a"', 'rows_of = "plain"'), "takes its rows of plain, which block main doesn't run before it"),
        (("seed = [0, 1]", "seed = 0"), "a factor's values should be a list of at least one, not 0"),
        (("parameters = { rows = 4 }", "parameters = { row = 4 }"), "row is no parameter; there are: rows, steps"),
        (("minutes = 1\n", 'blocks = ["maim"]\n'), "small.blocks names maim, and not all of them are blocks"),
        (('"seed={seed}"', '"base=weak"'), "base=weak should be a student's name and its seed, as in weak_1"),
        (("[parameters]", "[parameters"), "is no TOML"),
    ],
)
def test_plan_mistake_is_told_in_a_line(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in PLAN
    with pytest.raises(UserError) as refused:
        _plan(tmp_path, PLAN.replace(*change), small="small" in said or "row is" in said)
    assert said in str(refused.value) and "study.toml" in str(refused.value) and "\n" not in str(refused.value)


def test_plan_missing_file_and_unknown_parameter_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study.toml can't be read .*give a study's folder"):
        read_plan(tmp_path)
    with pytest.raises(UserError, match="columns is no parameter; there are: rows, steps"):
        _plan(tmp_path, given={"columns": "3"})


def _based(tmp_path: Path, name: str) -> tuple[str, ...]:
    plan = _plan(tmp_path / "study", PLAN.replace('"seed={seed}"', f'"base={name}"'))
    return _of(plan, "main", "a", seed="0", teacher="good")


def _base(folder: Path, content: str) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(content)


def test_base_of_seed_0_is_the_shipped_one_and_others_lie_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    assert f"student.path={PACKAGE / 'testbed/bases/strong'}" in _based(tmp_path, "strong_0")
    _base(tmp_path / "bases/weak_1", "{}")
    _base(tmp_path / "bases/novice", "{}")
    assert "student=testbed_base" in (found := _based(tmp_path, "weak_1"))
    assert f"student.path={tmp_path / 'bases/weak_1'}" in found
    assert f"student.path={tmp_path / 'bases/novice'}" in _based(tmp_path, "novice_0")


def test_base_missing_is_told_with_the_command_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study").mkdir()
    monkeypatch.setenv("SRECYCLE_BASES", str(tmp_path / "elsewhere"))
    with pytest.raises(UserError) as refused:
        _based(tmp_path, "weak_1")
    wanted = f"`python -m srecycle.testbed.pretrain --student weak --seed 1 --out {tmp_path / 'elsewhere'}` makes it"
    assert "the base student weak_1 is missing" in str(refused.value) and wanted in str(refused.value)
    _base(tmp_path / "elsewhere/weak_1", "{}")
    assert f"student.path={tmp_path / 'elsewhere/weak_1'}" in _based(tmp_path, "weak_1")


def test_base_of_another_content_makes_another_job_and_its_place_makes_none(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    _base(tmp_path / "bases/weak_1", "{}")
    text = PLAN.replace('"seed={seed}"', '"base=weak_1"')
    first = set(_plan(tmp_path / "study", text).jobs)
    _base(tmp_path / "moved/bases/weak_1", "{}")
    (tmp_path / "moved/study").mkdir()
    assert set(_plan(tmp_path / "moved/study", text).jobs) == first
    (tmp_path / "bases/weak_1/config.json").write_text('{"other": 1}')
    assert not set(_plan(tmp_path / "study", text).jobs) & first


@pytest.fixture
def _bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for the bases that are not shipped: plans need no weights."""
    monkeypatch.setenv("SRECYCLE_BASES", str(tmp_path))
    for name in ("weak_1", "strong_1", "novice"):
        _base(tmp_path / name, json.dumps({"name": name}))


@pytest.mark.usefixtures("_bases")
@pytest.mark.parametrize("name", STUDIES)
def test_study_is_read_in_both_sizes_and_stays_within_its_trainings(name: str) -> None:
    folder = ROOT / "experiments" / name
    whole, small = read_plan(folder), read_plan(folder, small=True)
    assert whole.minutes <= 90 and small.minutes <= 10
    trained = [job for job in whole.jobs.values() if any(one.startswith("trainer=") for one in job.overrides)]
    assert len({job.overrides for job in trained}) == len(trained) <= 430  # of these some share a training
    assert len(small.jobs) <= len(whole.jobs) / 3 or not whole.jobs
    tables = Counter(block for one in whole.tables for block in one.get("blocks", ()))
    assert set(tables) <= {cell.block for cell in whole.cells}
    assert (folder / "README.md").read_text().count("<!-- results -->") == 1


@pytest.mark.usefixtures("_bases")
def test_ablation_crosses_the_six_contrasts_and_asks_for_500_items() -> None:
    plan = read_plan(ROOT / "experiments/ablation")
    arms = {"selective", "original", "on both", "size matched", "random", "perplexity", "keep filters only"}
    crossed = {
        (cell.arm, *(cell.factors[name] for name in ("student", "teacher", "seed", "base")))
        for cell in plan.cells
        if cell.block == "crossed"
    }
    assert len(crossed) == len([cell for cell in plan.cells if cell.block == "crossed"])
    assert {arm for arm, *_ in crossed} == arms and len(crossed) % len(arms) == 0
    assert all("evaluator.testbed.items=500" in job.overrides for job in plan.jobs.values())
    drawn = {
        tuple(one for one in job.overrides if one.startswith(("seed=", "evaluator.testbed.seed=")))
        for job in plan.jobs.values()
    }
    assert ("seed=0", "evaluator.testbed.seed=500") in drawn and ("seed=1", "evaluator.testbed.seed=501") in drawn
    assert len(drawn) == len({one for one, _ in drawn}) == len({one for _, one in drawn})  # questions vary with it


@pytest.mark.slow
@pytest.mark.usefixtures("_bases")
@pytest.mark.parametrize("name", STUDIES)
def test_study_every_arm_composes_and_plans(name: str) -> None:
    plan = read_plan(ROOT / "experiments" / name)
    ends = {(cell.block, cell.arm, *cell.factors): cell for cell in plan.cells}  # the last of each
    with composing():
        for cell in ends.values():
            mode, experiment = build(hydra.compose("config", overrides=list(plan.jobs[cell.job].overrides)))
            stages = experiment.plan()
            assert mode == "run" and "assemble" in stages, plan.jobs[cell.job].label
            assert plan.jobs[cell.job].rows_of == "" or experiment.keep["top_random"].fraction is not None
