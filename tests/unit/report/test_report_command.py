"""`srecycle-report`, and the comparison at a sweep's end."""

import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from srecycle.report.__main__ import main
from srecycle.report.callback import Comparison


def report_of(path):
    return path.read_text(encoding="utf-8")


def test_command_default_reports_finished_runs_into_the_store(built, capsys):
    built.run("fine run"), built.run("broken run", status="failed")
    assert main(["--store", str(built.store.root)]) == 0
    said = capsys.readouterr()
    path = built.store.root / "report.html"
    assert "fine run" in said.out and "broken run" not in said.out
    assert said.err == f"report: {path}\n"
    assert "fine run" in report_of(path) and "broken run" not in report_of(path)


def test_command_store_comes_from_the_environment(built, monkeypatch):
    built.run("fine run")
    monkeypatch.setenv("SRECYCLE_STORE", str(built.store.root))
    assert main([]) == 0
    assert (built.store.root / "report.html").is_file()


def test_command_runs_that_were_killed_are_named_as_left_out(built, capsys):
    fine = built.run("fine run")
    for number in range(5):
        (built.store.root / "runs" / f"killed-{number}").mkdir()
    assert main(["--store", str(built.store.root)]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "left out, for they still go on or were killed: killed-0, killed-1, killed-2, and 2 more"
    assert main(["--store", str(built.store.root), fine.id]) == 0
    assert "killed-0" not in capsys.readouterr().err


def test_command_run_ids_choose_runs_in_their_order(built, tmp_path):
    first, _, third = (built.run(name) for name in ("first", "second", "third"))
    out = tmp_path / "chosen.html"
    assert main(["--store", str(built.store.root), "--out", str(out), third.id, first.id, third.id]) == 0
    text = report_of(out)
    assert text.index('data-run="third"') < text.index('data-run="first"')
    assert 'data-run="second"' not in text


def test_command_group_includes_its_failed_runs_only(built):
    built.run("mine", group="g1", status="failed"), built.run("other", group="g2")
    assert main(["--store", str(built.store.root), "--group", "g1"]) == 0
    text = report_of(built.store.root / "report.html")
    assert 'data-run="mine"' in text and 'data-run="other"' not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["20260214-101112-run-0009"], "has no run 20260214-101112-run-0009 (did you mean 20260214-101112-run-0000?)"),
        (["--group", "swep"], "has no run of group swep (did you mean sweep?)"),
        (["--out", "/dev/null/x.html"], "can't be written"),
    ],
)
def test_command_mistake_is_one_line_and_exit_code_2(built, capsys, arguments, message):
    built.run("one")
    assert main(["--store", str(built.store.root), *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("srecycle-report: error: ") and message in said.err
    assert said.err.count("\n") == 1 and not said.out


def test_command_folder_that_is_no_store_is_refused_and_left_alone(tmp_path, capsys):
    assert main(["--store", str(tmp_path)]) == 2
    assert "is no store of srecycle: give --store PATH or set SRECYCLE_STORE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_command_store_without_finished_runs_is_refused(built, capsys):
    built.run("one", status="failed")
    assert main(["--store", str(built.store.root)]) == 2
    assert "has no finished run" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_command_run_that_can_t_be_read_is_named(built, capsys, content):
    (built.run("one").folder / "run.json").write_text(content)
    assert main(["--store", str(built.store.root)]) == 2
    assert "holds no readable run.json" in capsys.readouterr().err


def sweep(built, tmp_path, **changes):
    config = {"store": str(built.store.root), "group": "", "mode": "run", **changes}
    return OmegaConf.create({**config, "hydra": {"sweep": {"dir": str(tmp_path / "sweeps" / "sweep")}}})


def test_sweep_end_compares_the_runs_of_the_sweep(built, tmp_path, capsys):
    built.run("mine"), built.run("failed one", status="failed"), built.run("other", group="elsewhere")
    Comparison().on_multirun_end(sweep(built, tmp_path))
    path = tmp_path / "sweeps" / "sweep" / "report.html"
    said = capsys.readouterr()
    assert "mine" in said.out and "failed one" in said.out and "other" not in said.out
    assert f"report: {path}" in said.err
    assert 'data-run="mine"' in report_of(path) and 'data-run="other"' not in report_of(path)


def test_sweep_end_named_group_compares_all_of_it(built, tmp_path):
    built.run("mine"), built.run("other", group="study")
    Comparison().on_multirun_end(sweep(built, tmp_path, group="study"))
    text = report_of(tmp_path / "sweeps" / "sweep" / "report.html")
    assert 'data-run="other"' in text and 'data-run="mine"' not in text


def test_sweep_end_without_runs_says_so_and_writes_nothing(built, tmp_path, capsys):
    Comparison().on_multirun_end(sweep(built, tmp_path))
    assert "no run of sweep left a result" in capsys.readouterr().err
    assert not (tmp_path / "sweeps").exists()


def test_sweep_end_of_a_plan_does_nothing(built, tmp_path, capsys):
    built.run("mine")
    Comparison().on_multirun_end(sweep(built, tmp_path, mode="plan"))
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "sweeps").exists()


def test_callback_import_loads_nothing_heavy():
    script = "import sys, srecycle.report.callback, json; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    )
    assert not {"numpy", "pyarrow", "torch", "jinja2"} & set(loaded)
    assert "hydra.experimental.callback" in loaded
