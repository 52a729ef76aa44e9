"""The tables of all runs: figures, the settings that differ, many runs at once."""

import json

import pytest

HOSTILE = "=HYPERLINK(1)</td><script>alert(1)</script>"


def named(page, kind):
    return [one["data-name"] for one in page.all(kind) if one.get("data-name")]


def test_settings_show_only_what_differs_with_the_first_figure_beside_it(built, page):
    configs = [{"margin": 0.1 * place, "seed": 0} for place in range(3)]
    runs = [built.run(f"r{place}", config=one, accuracy={"mean": (0.5, 0.1)}) for place, one in enumerate(configs)]
    shown = page(runs)
    assert "margin" in named(shown, "th") and "seed" not in named(shown, "th")
    assert "r1 0. 1 0.500 (best) ±0.100 r2 0. 2 0.500" in shown.text


def test_settings_shared_by_all_runs_are_told_once(built, page):
    config = {"margin": 0.1, "depth": "as deep as that"}
    shown = page([built.run(name, config={**config, "margin": len(name)}) for name in ("a", "bb", "ccc")])
    assert shown.text.count("as deep as that") == 1
    assert "Settings that all runs share (1)" in shown.text


def test_settings_of_a_single_run_are_its_own(built, page):
    shown = page([built.run("one", config={"depth": "only here"})])
    assert "Configuration (1) depth only here" in shown.text
    assert "Settings that all runs share" not in shown.text


def test_groups_have_a_column_and_a_choice_where_there_are_several(built, page):
    one = page([built.run("a", group="g1"), built.run("b", group="g1")])
    two = page([built.run("c", group="g1"), built.run("d", group="g2")])
    assert "every group" not in one.text and "every group" in two.text
    assert [row[1] for row in two.rows if row[0] in ("c", "d")] == ["g1", "g2"]


def test_figures_beyond_the_widest_table_are_counted(built, page):
    metrics = {f"evaluate/lm/task{place:03d}/acc": 0.5 for place in range(60)}
    shown = page([built.run("a", metrics=metrics), built.run("b", metrics=metrics)])
    assert "20 more figures stand among the metrics of each run" in shown.text


def test_charts_of_many_runs_draw_the_best_and_say_so(built, page):
    runs = [built.run(f"r{place:02d}", accuracy={"mean": (place / 100, 0.1)}) for place in range(50)]
    text = page(runs).text
    assert "Of 50 runs, the best 40 by testbed accuracy mean are drawn." in text


@pytest.mark.slow
def test_two_hundred_runs_fit_into_five_megabytes(built, tmp_path):
    from srecycle.report.html import write_report

    built.text = "a sentence of the kind that teachers write, with some words in it. " * 12
    metrics = {f"evaluate/lm/task{place}/acc": 0.5 for place in range(60)}
    metrics |= {name.replace("/acc", "/acc_stderr"): 0.01 for name in metrics}
    runs = []
    for place in range(200):
        config = {f"part{one}": {f"setting{two}": "value" * 5 for two in range(10)} for one in range(20)}
        config |= {"margin": place, "seed": place % 5}
        accuracy = {"mean": (place / 200, 0.02), "known": (0.5, 0.03)}
        changes = {"config": config, "metrics": metrics, "overrides": [f"margin={place}", f"seed={place % 5}"]}
        runs.append(built.run(f"arm-{place:03d}", accuracy=accuracy, key=f"k{place % 4}", **changes))
    path = write_report(runs, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    assert text.count('<tr data-run="arm-') == 400
    assert text.count('<article class="case"') >= 200


def test_run_whose_rows_had_no_room_says_how_to_see_them(built, page, monkeypatch):
    monkeypatch.setattr("srecycle.report.details._MOST_LETTERS", 100)
    runs = [built.run("first"), built.run("second")]
    shown = page(runs)
    assert f"Left out, for the page would be too large; srecycle-report {runs[1].id} shows them." in shown.text
    assert len(shown.all("article")) == 1


SORTED = """
const names = (table) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.dataset.run);
const table = document.querySelector("table.compared");
const heads = [...table.tHead.rows[1].cells];
const head = (text) => heads.find((cell) => cell.textContent.includes(text)).querySelector("button");
const found = {};
head("mean").click(); found.descending = names(table);
head("mean").click(); found.ascending = names(table);
const saved = [];
URL.createObjectURL = (blob) => { saved.push(blob); return "#"; };
for (const button of table.closest("section").querySelectorAll(".saves button")) button.click();
const filter = document.getElementById("filter");
filter.value = "MARGIN=2"; filter.dispatchEvent(new Event("input")); found.filtered = names(table);
found.settings = names(document.querySelector("table.compared-settings"));
found.details = [...document.querySelectorAll("details.run")].filter((one) => !one.hidden).length;
filter.value = ""; filter.dispatchEvent(new Event("input"));
const group = document.getElementById("group");
group.value = "other"; group.dispatchEvent(new Event("change")); found.grouped = names(table);
Promise.all(saved.map((blob) => blob.text())).then(([csv, latex]) => finish({ ...found, csv, latex }));
"""


def test_browser_sorts_filters_and_saves_the_table(built, tmp_path, driven):
    from srecycle.report.html import write_report

    low = built.run("low", accuracy={"mean": (0.25, 0.01)}, overrides=["margin=1"])
    high = built.run(HOSTILE, accuracy={"mean": (0.75, 0.02)}, overrides=["margin=2"], config={"margin": 2})
    none = built.run("50% & more_of", upto=0, status="failed", group="other")
    path = write_report([low, high, none], tmp_path / "report.html")
    found = json.loads(driven(path, SORTED))
    assert found["descending"] == [HOSTILE, "low", "50% & more_of"]
    assert found["ascending"] == ["low", HOSTILE, "50% & more_of"]
    assert found["filtered"] == found["settings"] == [HOSTILE]
    assert found["details"] == 1
    assert found["grouped"] == ["50% & more_of"]
    head, first, second, third, end = found["csv"].split("\r\n")
    assert head.startswith("run,group,testbed accuracy mean,testbed accuracy mean stderr,kept,")
    assert first.startswith("low,sweep,0.25,0.01,2,0.6666666666666666,3,12.5")
    assert second.startswith(f"'{HOSTILE},sweep,0.75,0.02,")
    assert third.startswith("50% & more_of,other,,,,") and not end
    assert r"\begin{tabular}{llrrrrr}" in found["latex"]
    assert r"low & sweep & 0.250$\pm$0.010 & 2 & 66.7\% & 3 & 12.5 \\" in found["latex"]
    assert r"\textbf{0.750$\pm$0.020}" in found["latex"]
    assert r"50\% \& more\_of & other & -- &" in found["latex"]
