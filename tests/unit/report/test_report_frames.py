"""The notebook's view of a store."""

from xml.etree import ElementTree

import pytest

from srecycle.errors import UserError
from srecycle.report.frames import open_store

HOSTILE = "</svg><script>alert(1)</script>"


@pytest.fixture
def store(built):
    built.run("low", accuracy={"mean": (0.25, 0.1)}, config={"margin": 1, "seed": 0}, group="g1")
    built.run("high", accuracy={"mean": (0.75, 0.1)}, config={"margin": 2, "seed": 0}, group="g2")
    return open_store(built.store.root)


def test_store_that_is_none_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="is no store of srecycle"):
        open_store(tmp_path)


def test_store_comes_from_the_environment(built, monkeypatch):
    monkeypatch.setenv("SRECYCLE_STORE", str(built.store.root))
    assert len(open_store().runs()) == 0
    assert open_store().runs().frame().empty


def test_groups_choose_runs(store):
    assert store.groups() == ["g1", "g2"]
    assert [one.run.name for one in store.runs("g2")] == ["high"]
    with pytest.raises(UserError, match=r"no run of group gg1 \(did you mean g1\?\)"):
        store.runs("gg1")


def test_frame_has_a_line_a_run_with_what_differs_and_every_metric(store):
    frame = store.runs().frame()
    assert list(frame["run"]) == ["low", "high"]
    assert list(frame["evaluate/testbed/accuracy/mean"]) == [0.25, 0.75]
    assert list(frame["cfg.margin"]) == [1, 2] and "cfg.seed" not in frame
    assert list(store.runs().frame(settings=True)["cfg.seed"]) == [0, 0]
    assert frame.index[0].startswith("2026")


def test_frame_leaves_out_what_only_follows_from_a_component_and_tells_choices(built):
    for name, extra in (("Weak", {"level": 1}), ("Strong", {"level": 1, "knob": 2})):
        config = {"teacher": {"class": f"x.{name}", **extra}}
        built.run(name, config=config, choices={"teacher": name.lower(), "student": "one"})
    frame = open_store(built.store.root).runs().frame()
    assert list(frame["choice.teacher"]) == ["weak", "strong"] and "choice.student" not in frame
    assert [name for name in frame if name.startswith("cfg.")] == ["cfg.teacher.class"]


def test_runs_are_shown_a_line_each(store):
    first, second = repr(store.runs()).splitlines()
    assert first.endswith("finished     low") and second.split()[-1] == "high"
    assert repr(store.runs()["low"]).endswith("assemble, train, evaluate/testbed")


def test_runs_are_found_by_name_and_id(store):
    runs = store.runs()
    assert runs[0].run.name == "low" and runs[-1].run.name == "high"
    assert runs["high"].run.id == runs[runs["high"].run.id].run.id
    with pytest.raises(UserError, match=r"no run hihg \(did you mean high\?\)"):
        runs["hihg"]


def test_tables_of_a_run_are_frames(store):
    run = store.runs()["low"]
    assert list(run.rows()["id"]) == ["a", "b", "c"]
    assert sorted(set(run.candidates()["phase"])) == ["instruction", "response"]
    assert len(run.scores()) == 5 and "loss_y_given_x" in run.scores()
    assert set(run.decisions()["reason"]) == {"incumbent_won"} and len(run.decisions()) == 6
    assert list(run.training()["kept"]) == [True, True, False]
    assert list(run.curve()["loss"]) == [3.0, 2.0, 1.0]
    assert run.metrics["assemble/kept"] == 2
    assert list(run.results().columns) == ["evaluator", "metric", "task", "item", "value"]


def test_tables_that_a_run_lacks_are_empty(built):
    built.run("bad", upto=0, status="failed")
    run = open_store(built.store.root).runs()["bad"]
    assert all(len(table()) == 0 for table in (run.rows, run.scores, run.decisions, run.curve, run.results))


def test_figures_are_svg_that_stands_alone(store):
    figures = store.runs().figures()
    assert {"evaluation-testbed", "composition", "distributions", "curves"} <= set(figures)
    for text in figures.values():
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_figures_name_their_colours_for_programs_that_know_no_variables(store):
    for text in store.runs().figures().values():
        style = ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}style").text
        assert "fill: #2457c5" in style
        assert "var(" not in style and "light-dark" not in style


def test_figures_escape_hostile_names(built):
    built.run(HOSTILE, accuracy={"mean": (0.5, 0.1)})
    text = open_store(built.store.root).runs().figures()["evaluation-testbed"]
    root = ElementTree.fromstring(text)
    assert not root.findall(".//{http://www.w3.org/2000/svg}script")
    assert HOSTILE in "".join(root.itertext())


def test_comparisons_are_frames(store):
    found = store.runs().comparisons(paper=True)
    assert found["paper-table-5"]["overall"].max() == 6.519


def test_html_writes_the_report(store, tmp_path):
    assert "high" in store.runs().html(tmp_path / "r.html").read_text(encoding="utf-8")
