"""Paired bootstrap between runs, against closed forms and by simulation."""

import json

import numpy as np
import pyarrow as pa
import pytest

from srecycle.report.comparison import entries
from srecycle.report.frames import open_store
from srecycle.report.html import write_report
from srecycle.report.items import Measure, items
from srecycle.report.paired import means, paired_grids
from tests.chromium import opened


def sampled(built, name, values, key, **changes):
    """Write a run whose evaluation kept these values, by task."""
    run = built.run(name, accuracy={"mean": (0.5, 0.1)}, key=key, **changes)
    folder = built.store.folder("evaluate", key)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {"task": task, "doc_id": place, "doc_hash": f"h{place}", "filter": "none", "metrics": ["acc"], "acc": value}
        for task, some in values.items()
        for place, value in enumerate(some)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def grid_of(built):
    return {grid.name: grid for grid in paired_grids(entries(built.runs))}


def test_items_are_read_by_evaluator_metric_and_task(built):
    run = sampled(built, "a", {"one": [1.0, 0.0], "two": [0.5]}, "k1")
    assert items(run) == {
        Measure(evaluator="testbed", metric="acc"): {"one": {"h0:0": 1.0, "h1:1": 0.0}, "two": {"h0:0": 0.5}}
    }


def test_items_file_that_was_cut_gives_what_can_be_read(built):
    run = sampled(built, "a", {"one": [1.0, 0.0]}, "k1")
    file = built.store.folder("evaluate", "k1") / "samples.jsonl"
    file.write_text(file.read_text()[:-20])
    assert items(run) == {Measure(evaluator="testbed", metric="acc"): {"one": {"h0:0": 1.0}}}


def test_items_verdicts_average_to_the_win_rate_and_name_their_opponent(built):
    run = built.run("a", key="k1", config={"evaluator": {"testbed": {"against": "abc"}}})
    verdicts = ["win", "win", "tie", "lose", None]
    table = pa.table({"set": ["s"] * 5, "id": list("vwxyz"), "verdict": pa.array(verdicts, pa.string())})
    built.put("evaluate", "k1", "judgments", table)
    (found,) = items(run)[Measure(evaluator="testbed", metric="win_rate")].values()
    assert set(found) == {"abc:v", "abc:w", "abc:x", "abc:y"}
    assert sum(found.values()) / 4 == (2 - 1) / 4 + 1


def test_means_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    (found,), count = means([{"t": {str(place): value for place, value in enumerate(values)}}])
    low, high = found.interval
    error = values.std() / 20
    assert count == 400 and found.value == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.15 * error)


def test_means_difference_of_alike_runs_is_narrower_than_their_own_intervals():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 1, 300)
    runs = [{"t": {str(place): value for place, value in enumerate(hard + shift)}} for shift in (0.0, 0.05)]
    (one, other), _ = means(runs)
    assert other.less(one).interval == pytest.approx((0.05, 0.05), abs=1e-9)
    assert one.interval[1] - one.interval[0] > 0.2


def test_means_tasks_weigh_alike_whatever_their_size():
    (found,), count = means([{"small": {"a": 1.0}, "large": {str(place): 0.0 for place in range(99)}}])
    assert (found.value, count) == (0.5, 100)


def test_means_use_shared_items_only():
    (one, other), count = means([{"t": {"a": 1.0, "b": 0.0}}, {"t": {"b": 1.0, "c": 0.0}, "u": {"d": 1.0}}])
    assert (one.value, other.value, count) == (0.0, 1.0, 1)
    assert means([{"t": {"a": 1.0}}, {"u": {"a": 1.0}}]) == (None, 0)


def test_means_are_the_same_again():
    run = {"t": {str(place): float(place % 3) for place in range(50)}}
    assert means([run])[0][0].interval == means([run])[0][0].interval


def test_grid_clear_difference_is_bold_and_noise_is_not(built):
    sampled(built, "base", {"t": [0.0, 1.0] * 50}, "k1")
    sampled(built, "noise", {"t": [1.0, 0.0] * 50}, "k2")
    sampled(built, "better", {"t": [1.0, 1.0] * 50}, "k3")
    first, noise, better = grid_of(built)["paired-testbed/acc"].rows
    assert first[4].text == "reference"
    assert noise[4].text == "+0.000" and not noise[4].strong
    assert better[4].value == pytest.approx(0.5) and better[4].strong
    assert better[6].text == "100.0%"


def test_grid_of_pairs_is_antisymmetric(built):
    for place, name in enumerate("abc"):
        sampled(built, name, {"t": [float(one % (place + 2) == 0) for one in range(60)]}, f"k{place}")
    rows = grid_of(built)["pairs-testbed/acc"].rows
    assert [rows[place][place + 1].value for place in range(3)] == [None] * 3
    assert rows[0][2].value == pytest.approx(-rows[1][1].value) and rows[0][2].value > 0


def test_grid_other_items_are_not_compared(built):
    sampled(built, "base", {"t": [1.0, 0.0]}, "k1")
    sampled(built, "other", {"u": [1.0, 0.0]}, "k2")
    (_, other) = grid_of(built)["paired-testbed/acc"].rows
    assert other[4].text == "no shared items" and other[1].value == 0.5


def test_grid_failed_runs_and_runs_without_items_stay_out(built, page):
    sampled(built, "base", {"t": [1.0]}, "k1")
    sampled(built, "bad", {"t": [0.0]}, "k2", status="failed")
    built.run("plain", key="k3")
    assert grid_of(built) == {}
    assert "item by item" not in page(built.runs).text


def test_grid_hostile_names_are_text(built, page):
    name = "<script>alert(1)</script>"
    sampled(built, name, {name: [1.0, 0.0]}, "k1"), sampled(built, "b", {name: [0.0, 1.0]}, "k2")
    shown = page(built.runs)
    assert len(shown.all("script")) == 1
    assert f"testbed acc, against {name}" in shown.text


HEADS = ["run", "mean", "95% interval low", "95% interval high", "items", "difference"]
HEADS += ["95% interval of it low", "95% interval of it high", "better in"]


def test_grid_is_a_frame_of_numbers_with_the_ends_of_its_intervals(built):
    sampled(built, "a", {"one": [0.0, 1.0] * 50}, "k1"), sampled(built, "b", {"one": [1.0] * 100}, "k2")
    frame = open_store(built.store.root).runs().comparisons()["paired-testbed/acc"]
    assert list(frame.columns) == HEADS and list(frame["run"]) == ["a", "b"]
    assert frame["95% interval low"][0] < frame["mean"][0] == 0.5 < frame["95% interval high"][0]
    assert np.isnan(frame["difference"][0]) and frame["difference"][1] == 0.5
    assert 0.3 < frame["95% interval of it low"][1] < 0.5


def test_grid_is_saved_with_the_ends_of_its_intervals(built, tmp_path, browser):
    runs = [sampled(built, "a", {"one": [0.0, 1.0] * 50}, "k1"), sampled(built, "b", {"one": [1.0] * 100}, "k2")]
    path = write_report(runs, tmp_path / "report.html")
    with opened(browser, path, accept_downloads=True) as shown:
        with shown.page.expect_download() as download:
            shown.page.locator("section:has(> h2:text('item by item')) .saves button", has_text="CSV").first.click()
        lines = download.value.path().read_text().splitlines()
    assert lines[0].split(",") == HEADS
    assert [float(one) for one in lines[2].split(",")[1:5]] == [1.0, 1.0, 1.0, 100.0]
    assert lines[1].split(",")[5:] == ["reference", "", "", "\N{EN DASH}"]
