"""The tables of all runs: figures, the settings that differ, many runs at once."""

import re

import pyarrow.parquet as pq
import pytest

from srecycle.report.html import write_report
from srecycle.store import write_table
from tests.chromium import opened

HOSTILE = "=HYPERLINK(1)</td><script>alert(1)</script>"


def named(page, kind):
    return [one["data-name"] for one in page.all(kind) if one.get("data-name")]


def test_settings_show_only_what_differs_with_the_first_figure_beside_it(built, page):
    configs = [{"margin": 0.1 * place, "seed": 0} for place in range(3)]
    means = [{"mean": (0.5 - place / 10, 0.1)} for place in range(3)]
    shown = page([built.run(f"r{place}", config=configs[place], accuracy=means[place]) for place in range(3)])
    assert "margin" in named(shown, "th") and "seed" not in named(shown, "th")
    assert "r0 0.0 0.500 (best) ±0.100 r1 0.1 0.400 ±0.100 r2 0.2 0.300" in shown.text


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
    assert "A ring marks the best finished run. Of 50 runs, the best 40 by testbed accuracy mean are shown." in text


def test_settings_that_are_digests_are_shown_by_their_beginning(built, page):
    digests = [f"sha256:{letter * 64}" for letter in "ab"]
    shown = page([built.run(one[-1], config={"path": one}) for one in digests])
    assert [one["data-value"] for one in shown.all("td") if one.get("title")] == digests
    assert "a sha256:aaaaaaaa… b sha256:bbbbbbbb…" in shown.text


def test_keep_filters_tell_by_how_much_they_decided(built, page):
    run = built.run("one")
    file = built.store.folder("assemble", "k0") / "training.parquet"
    table = pq.read_table(file)
    for name, values in (("flip", [0.25, -0.125, 1e-300]), ("flip_of", ["ifd_max", "rifd_max", "ifd_max"])):
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), [values])
    write_table(file, table)
    text = page([run]).text
    assert "keep filters: IFD max keeps it by 0.25" in text
    assert "max refuses it by 0.125" in text
    assert "keep filters: IFD max keeps it barely" in text


@pytest.mark.slow
def test_two_hundred_runs_fit_into_five_megabytes(built, tmp_path):
    built.text = "a sentence of the kind that teachers write, with some words in it. " * 12
    metrics = {f"evaluate/lm/task{place}/acc": 0.5 for place in range(200)}
    metrics |= {name.replace("/acc", "/acc_stderr"): 0.01 for name in metrics}
    runs = []
    for place in range(200):
        config = {f"part{one}": {f"setting{two}": f"value{place}" * 5 for two in range(10)} for one in range(20)}
        config |= {"margin": place, "seed": place % 5}
        accuracy = {"mean": (place / 200, 0.02), "known": (0.5, 0.03)}
        changes = {"config": config, "metrics": metrics, "overrides": [f"margin={place}", f"seed={place % 5}"]}
        runs.append(built.run(f"arm-{place:03d}", accuracy=accuracy, key=f"k{place % 4}", **changes))
    path = write_report(runs, tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 5_000_000
    assert text.count('<tr data-run="arm-') == 400
    assert text.count('<article class="case"') >= 200


def test_lists_that_have_no_room_say_how_much_is_missing(built, page, monkeypatch):
    monkeypatch.setattr("srecycle.report.details._MOST_LISTED", 1000)
    shown = page([built.run(name, config={f"{name}{place}": place for place in range(9)}) for name in "ab"])
    count = len(built.runs[0].metrics)
    assert f"All metrics ({count})" in shown.text and "Configuration (9)" in shown.text
    kept = [line for line in shown.text.split() if line.startswith("assemble/")]
    (first, _) = re.findall(r"(\d+) more metrics: for all of this", shown.text)
    assert 0 < int(first) < count and kept
    assert "7 more settings: for all of this" in shown.text


def test_run_whose_rows_had_no_room_says_how_to_see_them(built, page, monkeypatch):
    monkeypatch.setattr("srecycle.report.details._MOST_LETTERS", 100)
    runs = [built.run("first"), built.run("second")]
    shown = page(runs)
    assert f"Left out, for the page would be too large; srecycle-report {runs[1].id} shows them." in shown.text
    assert len(shown.all("article")) == 1


def names(page):
    rows = page.locator("table.compared tbody tr:visible").all()
    return [row.get_attribute("data-run") for row in rows]


def saved(page, kind):
    with page.expect_download() as download:
        page.locator("[aria-labelledby=comparison] ~ .saves button", has_text=kind).first.click()
    return download.value.path().read_bytes().decode()


def test_browser_sorts_filters_and_saves_the_table(built, tmp_path, browser):
    low = built.run("low", accuracy={"mean": (0.25, 0.01)}, overrides=["margin=1"])
    high = built.run(HOSTILE, accuracy={"mean": (0.75, 0.02)}, overrides=["margin=2"], config={"margin": 2})
    none = built.run("50% & more_of", upto=0, status="failed", group="other")
    path = write_report([low, high, none], tmp_path / "report.html")
    with opened(browser, path, accept_downloads=True) as shown:
        page = shown.page
        mean = page.locator("table.compared thead button", has_text="mean")
        mean.click()
        assert names(page) == [HOSTILE, "low", "50% & more_of"]
        mean.click()
        assert names(page) == ["low", HOSTILE, "50% & more_of"]
        csv, latex = saved(page, "CSV"), saved(page, "LaTeX")
        page.locator("#filter").fill("MARGIN=2")
        assert names(page) == [HOSTILE]
        assert page.locator("table.compared-settings tbody tr:visible").count() == 1
        assert page.locator("details.run:visible").count() == 1
        page.locator("#filter").fill("")
        page.locator("#group").select_option("other")
        assert names(page) == ["50% & more_of"]
        assert shown.said == shown.fetched == []
    head, first, second, third, end = csv.split("\r\n")
    assert head.startswith("run,group,testbed accuracy mean,testbed accuracy mean stderr,kept,")
    assert first.startswith("low,sweep,0.25,0.01,2,0.6666666666666666,3,12.5")
    assert second.startswith(f"'{HOSTILE},sweep,0.75,0.02,")
    assert third.startswith("50% & more_of,other,,,,") and not end
    assert r"\begin{tabular}{llrrrrr}" in latex
    assert r"low & sweep & 0.250$\pm$0.010 & 2 & 66.7\% & 3 & 12.5 \\" in latex
    assert r"\textbf{0.750$\pm$0.020}" in latex
    assert r"50\% \& more\_of & other & -- &" in latex
