"""The command itself: from any folder, from a wheel, and what it says to users who made a mistake."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import SMALL, command

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer.rnk=3"], ["trainer.rnk", "--cfg job"]),
        (["+trainer.rnk=3"], ["trainer.rnk", "did you mean rank?"]),
        (["trainer.rank=many"], ["trainer.rank", "'many'", "integer"]),
        (["keep.ifd_max.below=-1"], ["keep.ifd_max.below", "-1", "greater than 0"]),
        (["selector@selector.response=ifdd"], ["selector/ifdd", "reversed_ifd"]),
        (["data=alpaca", "data.path=nowhere.json", "student.path=x/y"], ["nowhere.json", "No such file"]),
        (["data=alpaca", "data.path={columns}", "teacher=scripted", "student.path={model}"], ["'output'", "'answer'"]),
        (["data=alpaca", "data.path={empty}", "teacher=scripted", "student.path={model}"], ["no samples"]),
        (["data=alpaca"], ["student.path is not set", "student.path=VALUE"]),
        (["student.path=/no/such/model"], ["/no/such/model", "is not a folder"]),
        (["teacher=openai"], ["OPENAI_API_KEY", "export it"]),
        (["teacher._target_=os.system"], ["os.system", "refused"]),
        (["+hydra.callbacks.evil={_target_: os.mkdir, path: made}"], ["os.mkdir", "refused"]),
        (["student=null"], ["Config group override"]),
        (["~teacher"], ["teacher"]),
        (["student.path='no hub id'"], ["no hub id", "is not a folder"]),
        (["student.device=foo", "teacher=scripted"], ["student.device=foo", "cuda"]),
        (["evaluator=[lm_eval]", "evaluator.lm_eval.tasks=[no_such_task]"], ["no_such_task", "lm-eval ls tasks"]),
        (["template.user=hello"], ["template.user", "{instruction}"]),
        (["mode=dream"], ["mode=dream", "mode=plan"]),
        (["trainer.rank=[3"], ["trainer.rank=[3"]),
    ],
)
def test_command_with_a_users_mistake_says_it_in_one_line(
    tmp_path: Path, arguments: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "columns.json").write_text('[{"instruction": "a", "answer": "b"}]')
    (tmp_path / "empty.json").write_text("[]")
    known = {
        "columns": tmp_path / "columns.json",
        "empty": tmp_path / "empty.json",
        "model": ROOT / "srecycle" / "testbed" / "bases" / "weak",
    }
    filled = list(arguments)
    for name, path in known.items():
        filled = [argument.replace(f"{{{name}}}", str(path)) for argument in filled]

    process = command(*filled, "tracker=none", store=tmp_path / "store", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)

    lines = errors.strip().splitlines()
    assert process.returncode == 2, errors
    assert len([line for line in lines if "error" in line]) == 1 and "Traceback" not in errors
    assert lines[-1].startswith("srecycle: error: ")
    for part in said:
        assert part in lines[-1]


def test_command_with_a_hub_student_and_no_hub_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    process = command("student.path=org/name", "mode=plan", store=tmp_path / "store", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 2 and "Traceback" not in errors
    assert "org/name" in errors and "the hub can't be asked" in errors


def test_command_help_from_another_folder_lists_groups(tmp_path: Path) -> None:
    process = command("--help", store=tmp_path / "store", cwd=tmp_path)
    output, errors = process.communicate(timeout=60)

    assert process.returncode == 0, errors
    assert "selector" in output and "reversed_ifd" in output and "srecycle -m" in output


def test_command_sweep_runs_every_job_though_one_fails_and_compares(tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = command("-m", *SMALL, "keep.ifd_max.below=0.001,1.0", store=store, cwd=tmp_path)
    output, errors = process.communicate(timeout=240)

    assert process.returncode == 2, "one job of the two has nothing to train on"
    assert "nothing to train on" in errors and "loosen the keep filters" in errors
    assert "ifd_max.below=1.0" in output and "(failed)" in output
    (report,) = store.glob("sweeps/*/report.html")
    assert "ifd_max.below=1.0" in report.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a file that has no space")
def test_sweep_whose_failures_cannot_be_written_down_ends_in_an_error(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "failed.txt").symlink_to("/dev/full")
    asked = ("-m", *SMALL, "keep.ifd_max.below=-1,-2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    process = command(*asked, store=tmp_path / "store", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "greater than 0" in errors and "No space left on device; what is finished stays" in errors
    assert "Traceback" not in errors


def test_wheel_unpacked_elsewhere_runs_with_its_own_configuration(tmp_path: Path) -> None:
    built = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(site)
    carried = [name for name in names if name.startswith(("srecycle/_conf/", "srecycle/_sweeps/"))]
    assert "srecycle/_conf/experiment/demo/selective.yaml" in carried and "srecycle/_sweeps/thresholds.yaml" in carried
    assert all(name.endswith(".yaml") for name in carried)
    assert not any(name.startswith(("tests/", "conf/", "experiments/")) for name in names)

    environment = os.environ | {"PYTHONPATH": str(site), "SRECYCLE_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-m", "srecycle", "experiment=demo/random", "mode=plan"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate/testbed" in done.stdout
    where = subprocess.run(
        [sys.executable, "-c", "import srecycle; print(srecycle.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
