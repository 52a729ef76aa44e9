"""Figures, measured: coordinates against the values that they stand for."""

import math
from itertools import pairwise

import numpy as np
import pytest

from srecycle.report.charts import Scale, fitted, round_step
from srecycle.report.comparison import compared, differences, entries
from srecycle.report.composition import composition_chart, outcomes_chart
from srecycle.report.curves import curve_chart, distribution_chart
from srecycle.report.decisions import cases
from srecycle.report.evidence import Curve, Distribution, distributions
from srecycle.report.figures import evaluation_charts
from srecycle.report.runs import labels


def of(chart, kind, style):
    return [mark for mark in chart.marks if mark.kind == kind and style in mark.style.split()]


def test_evaluation_dots_stand_in_proportion_to_values(built):
    figures = [{"mean": (value, 0.1)} for value in (0.2, 0.4, 0.8)]
    (chart,) = evaluation_charts(entries([built.run(f"r{place}", accuracy=one) for place, one in enumerate(figures)]))
    first, second, third = (dot.geometry["cx"] for dot in of(chart, "circle", "value"))
    assert (third - second) / (second - first) == pytest.approx(2.0, abs=1e-3)


def test_evaluation_bars_reach_one_standard_error_to_each_side(built):
    wide, narrow = ({"mean": (0.5, error)} for error in (0.2, 0.05))
    (chart,) = evaluation_charts(entries([built.run("a", accuracy=wide), built.run("b", accuracy=narrow)]))
    lengths = [bar.geometry["x2"] - bar.geometry["x1"] for bar in of(chart, "line", "error")]
    assert lengths[0] / lengths[1] == pytest.approx(4.0, rel=1e-3)
    assert of(chart, "circle", "value")[0].geometry["cx"] == pytest.approx(
        (of(chart, "line", "error")[0].geometry["x1"] + of(chart, "line", "error")[0].geometry["x2"]) / 2, abs=0.02
    )


def test_evaluation_failed_run_has_a_row_and_a_word_but_no_dot(built):
    runs = [built.run("fine", accuracy={"mean": (0.5, 0.1)}), built.run("bad", upto=0, status="failed")]
    (chart,) = evaluation_charts(entries(runs))
    assert [mark.text for mark in of(chart, "text", "name")] == ["fine", "bad"]
    assert [mark.text for mark in of(chart, "text", "absent")] == ["failed"]
    assert len(of(chart, "circle", "value")) == 1


def test_evaluation_one_value_everywhere_still_has_an_axis(built):
    (chart,) = evaluation_charts(entries([built.run("a", accuracy={"mean": (0.0, 0.0)})]))
    assert all(math.isfinite(mark.geometry["cx"]) for mark in of(chart, "circle", "value"))


def test_evaluation_many_metrics_stay_inside_the_chart(built):
    metrics = {f"evaluate/lm/task{place:02d}/acc": 0.5 for place in range(17)}
    errors = {name.replace("/acc", "/acc_stderr"): 0.01 for name in metrics}
    (chart,) = evaluation_charts(entries([built.run("a", metrics=metrics | errors)]))
    dots = of(chart, "circle", "value")
    assert len(dots) == 17
    assert all(0 < dot.geometry["cx"] < chart.width and 0 < dot.geometry["cy"] < chart.height for dot in dots)


def test_compared_puts_the_mean_first_and_splits_in_their_order(built):
    run = built.run("a", accuracy=dict.fromkeys(("longer", "known", "partial", "mean", "unseen_2"), (0.5, 0.1)))
    last = [name.rpartition("/")[2] for name in compared(entries([run]))]
    assert last == ["mean", "known", "partial", "unseen_2", "longer"]


def test_composition_segments_are_proportional_to_counts(built):
    counts = {"original": 10, "instruction": 20, "response": 30, "both": 40}
    metrics = {f"assemble/taken/{name}": count for name, count in counts.items()}
    chart = composition_chart(entries([built.run("a", metrics=metrics)]))
    thin = [mark for mark in of(chart, "rect", "segment") if mark.geometry["height"] == 6]
    widths = [mark.geometry["width"] + 1 for mark in thin]
    assert [width / widths[0] for width in widths] == pytest.approx([1, 2, 3, 4], rel=1e-2)
    assert "a, taken: both 40 (40.0%)" in [mark.title for mark in thin]


def test_composition_verdicts_fill_the_whole_bar_with_ok_first(built):
    metrics = {"evaluate/testbed/kept/noisy": 1, "evaluate/testbed/kept/ok": 3}
    chart = composition_chart(entries([built.run("a", metrics=metrics)]))
    bars = of(chart, "rect", "verdict-ok") + of(chart, "rect", "fault-0")
    widths = [bar.geometry["width"] + 1 for bar in bars]
    assert widths[0] / widths[1] == pytest.approx(3)
    assert bars[1].geometry["x"] + widths[1] == pytest.approx(chart.width, abs=0.1)
    assert [[key.name for key in legend.keys] for legend in chart.legends][1] == ["ok", "noisy"]


def test_composition_without_any_training_set_is_none(built):
    assert composition_chart(entries([built.run("a", upto=3)])) is None


def test_distributions_before_is_original_versions_and_after_is_kept_rows(built):
    found = distributions(built.run("a"))["ifd"]
    assert sorted(found.before) == pytest.approx([0.25, 0.5, 2.0])
    assert sorted(found.after) == pytest.approx([0.8, 0.9])


def test_distribution_values_below_one_stay_left_of_the_threshold():
    values = np.array([0.3, 0.5, 0.9, 0.999])
    one = Distribution(before=values, after=values)
    chart = distribution_chart({"a": {"ifd": one, "r_ifd": one}})
    threshold = of(chart, "line", "threshold")[0].geometry["x1"]
    area = of(chart, "path", "after")[0].geometry["d"]
    points = [tuple(map(float, point.split())) for point in area.removeprefix("M").split("L")]
    ground = max(y for _, y in points)
    assert all(x <= threshold + 0.01 for x, y in points if y < ground)
    assert any(threshold - 20 < x and y < ground for x, y in points)


def test_distribution_extreme_values_count_in_the_last_bin():
    one = Distribution(before=np.array([0.5] * 9 + [1e9]), after=np.array([]))
    chart = distribution_chart({"a": {"ifd": one, "r_ifd": one}})
    outline = of(chart, "path", "before")[0].geometry["d"]
    points = [tuple(map(float, point.split())) for point in outline.removeprefix("M").split("L")]
    ground, end = points[0][1], max(x for x, _ in points)
    assert [y < ground for x, y in points[-3:-1]] == [True, True]
    assert points[-1] == (end, ground)
    assert not of(chart, "path", "after")


def test_curve_falls_on_the_page_as_the_loss_falls():
    chart = curve_chart({"a": Curve(steps=np.array([1.0, 2.0, 3.0]), losses=np.array([3.0, 2.0, 1.0]))})
    points = [tuple(map(float, point.split())) for point in of(chart, "path", "curve")[0].geometry["d"][1:].split("L")]
    (_, first), (_, second), (_, third) = points
    assert first < second < third
    assert third - second == pytest.approx(second - first, abs=0.02)


def test_curves_that_are_too_many_to_be_named_are_told_when_pointed_at():
    one = Curve(steps=np.array([1.0, 2.0]), losses=np.array([2.0, 1.0]))
    chart = curve_chart({f"run {place}": one for place in range(40)})
    assert not [mark for mark in chart.marks if mark.text.startswith("run ")]
    assert [mark.title for mark in of(chart, "path", "curve")][39] == "run 39: 2.000 to 1.000"
    assert chart.height < 400 and "Point at a line" in chart.caption


def test_curve_names_of_lines_that_end_together_do_not_overlap():
    one = Curve(steps=np.array([1.0, 2.0]), losses=np.array([2.0, 1.0]))
    chart = curve_chart({f"run {place}": one for place in range(24)})
    heights = sorted(mark.geometry["y"] for mark in chart.marks if mark.text.startswith("run "))
    assert len(heights) == 24
    assert min(after - before for before, after in pairwise(heights)) >= 16.9
    assert heights[0] > 0 and heights[-1] < chart.height


def test_fitted_name_keeps_its_beginning_and_its_end():
    name = "scripted, testbed_weak, keep.ifd_max.below=0.85"
    short = fitted(name, 30 * 6.9 + 1)
    assert len(short) == 30 and name.startswith(short.partition("…")[0]) and name.endswith(short.partition("…")[2])
    assert short.endswith("below=0.85") and fitted(name, 1000) == name


@pytest.mark.parametrize(("extent", "about", "step"), [(1, 4, 0.5), (0.9, 5, 0.2), (800, 5, 200), (10, 10, 1)])
def test_round_step_cuts_an_extent_into_about_so_many_parts(extent, about, step):
    assert round_step(extent, about) == pytest.approx(step)


def test_scale_ticks_are_round_and_inside():
    scale = Scale(low=0.13, high=0.61, start=0, length=100)
    assert scale.ticks(4) == pytest.approx([0.2, 0.4, 0.6])
    assert [scale.named(tick, 4) for tick in scale.ticks(4)] == ["0.2", "0.4", "0.6"]


def test_cases_are_the_same_for_the_same_run_and_cover_all_outcomes(built):
    run = built.run("a")
    assert cases(run, 20) == cases(run, 20)
    assert {case.outcome for case in cases(run, 3)} == {case.outcome for case in cases(run, 20)}
    assert len(cases(run, 2)) == 2


def test_differences_show_only_what_differs_and_not_what_follows(built):
    shared = {"seed": 0, "revision": 1}
    lora = {"class": "srecycle.trainer.lora.LoRATrainer", "revision": 3, "rank": 8}
    bare = {"class": "srecycle.trainer.base.NoTrainer", "revision": 1}
    configs = [{**shared, "trainer": one, "below": below} for one, below in ((lora, 0.9), (lora, 1.0), (bare, 1.0))]
    found = differences([built.run("a", config=config) for config in configs])
    assert {row.field: (row.values, row.usual) for row in found} == {
        "below": (["0.9", "1.0", "1.0"], "1.0"),
        "trainer.class": (["LoRATrainer", "LoRATrainer", "NoTrainer"], "LoRATrainer"),
    }


def test_differences_setting_that_varies_within_a_component_is_shown(built):
    configs = [
        {"trainer": {"class": name, **rest}} for name, rest in (("x.A", {"r": 1}), ("x.A", {"r": 2}), ("x.B", {}))
    ]
    found = differences([built.run("a", config=config) for config in configs])
    assert {row.field: row.values for row in found}["trainer.r"] == ["1", "2", ""]


def test_differences_nested_settings_follow_the_component_above_them(built):
    testbed = {"class": "x.Testbed", "mix": {"ok": 0.5, "noisy": 0.5}}
    found = differences([built.run("a", config={"data": one}) for one in (testbed, testbed, {"class": "x.Alpaca"})])
    assert [row.field for row in found] == ["data.class"]


def test_differences_classes_of_one_name_keep_their_modules(built):
    found = differences([built.run("a", config={"class": name, "b": {"class": name}}) for name in ("x.A", "y.A")])
    assert found[0].values == ["x.A", "y.A"]


def test_labels_are_unique_for_repeated_runs(built):
    runs = [
        built.run("a", overrides=["seed=1"]),
        built.run("a", overrides=["seed=2"]),
        built.run("a", overrides=["seed=2"]),
    ]
    assert list(labels(runs).values()) == ["seed=1", "seed=2", "seed=2 #2"]
    assert list(labels([*runs, built.run("b")]).values()) == ["a (seed=1)", "a (seed=2)", "a (seed=2) #2", "b"]


def test_labels_shorten_keys_as_far_as_they_stay_apart(built):
    keys = ("keep.ifd_max.below", "keep.rifd_max.below", "selector.instruction.margin", "selector.response.margin")
    overrides = [f"{key}=0.{place}" for place, key in enumerate(keys)]
    found = labels([built.run("a", overrides=overrides), built.run("a", overrides=["teacher@teacher=y/z.json"])])
    told = "ifd_max.below=0.0, rifd_max.below=0.1, instruction.margin=0.2, response.margin=0.3"
    assert list(found.values()) == [told, "teacher=z.json"]


def test_labels_name_choices_without_their_group_and_leave_out_what_runs_of_one_name_share(built):
    shared = {"name": "a", "choices": {"teacher": "weak", "selector@selector.response": "ifd"}}
    runs = [
        built.run(overrides=["data.count=9", "teacher=weak", "selector@selector.response=ifd"], **shared),
        built.run(overrides=["data.count=9", "seed=1"], **shared),
        built.run("other", overrides=["data.path=elsewhere"]),
    ]
    assert list(labels(runs).values()) == ["a (weak, selector.response=ifd)", "a (seed=1)", "other"]


def test_outcomes_fill_the_bar_with_what_became_of_every_row(built):
    refused = {"assemble/refused/ifd_too_high": 1, "assemble/refused/response_not_reflected": 3}
    runs = [built.run("a", metrics={"assemble/kept": 4, **refused}), built.run("bad", upto=0, status="failed")]
    chart = outcomes_chart(entries(runs))
    segments = of(chart, "rect", "segment")
    widths = [mark.geometry["width"] + 1 for mark in segments]
    assert [width / sum(widths) for width in widths] == pytest.approx([4 / 8, 3 / 8, 1 / 8], rel=1e-3)
    assert segments[1].title == "a: response not reflected 3 (37.5%)"
    assert [key.name for key in chart.legends[0].keys] == ["kept", "response not reflected", "IFD too high"]
    assert [mark.text for mark in of(chart, "text", "absent")] == ["failed"]


def test_outcomes_without_a_refusal_have_no_chart(built):
    run = built.run("a", without=("assemble",), metrics={"assemble/kept": 4})
    assert outcomes_chart(entries([run])) is None
