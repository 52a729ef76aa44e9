"""Figures over runs: cost, swept settings, pairings of teachers and students."""

import pytest

from srecycle.report.comparison import entries
from srecycle.report.relations import cost_chart, pairing_chart, sweep_charts


def of(chart, kind, style):
    return [mark for mark in chart.marks if mark.kind == kind and style in mark.style.split()]


def swept(built, margin, mean, **changes):
    config = {"keep": {"ifd_max": {"class": "srecycle.keep.IFDMax", "margin": margin}}, "seed": 0}
    config |= changes.pop("config", {})
    return built.run(f"m{margin}", accuracy={"mean": (mean, 0.1)}, config=config, **changes)


def test_cost_dots_stand_by_dollars_where_something_was_paid(built):
    for dollars in (0.0, 10.0, 40.0):
        built.run(f"{dollars}", accuracy={"mean": (0.5, 0.1)}, metrics={"cost/usd": dollars})
    chart = cost_chart(entries(built.runs))
    first, second, third = (dot.geometry["cx"] for dot in of(chart, "circle", "series-0"))
    assert (third - first) / (second - first) == pytest.approx(4.0, abs=1e-3)
    assert "the teacher's replies, $" in [mark.text for mark in chart.marks]


def test_cost_free_replies_are_counted_in_requests(built):
    for count in (0, 7):
        built.run(f"r{count}", accuracy={"mean": (0.5, 0.1)}, metrics={"reflect_instruction/requests": count})
    assert "requests to the teacher" in [mark.text for mark in cost_chart(entries(built.runs)).marks]


def test_cost_runs_that_cost_the_same_have_no_chart(built):
    for name in "ab":
        built.run(name, accuracy={"mean": (0.5, 0.1)})
    assert cost_chart(entries(built.runs)) is None


def test_cost_failed_runs_are_not_drawn(built):
    built.run("a", accuracy={"mean": (0.5, 0.1)}, metrics={"cost/usd": 1.0})
    built.run("b", accuracy={"mean": (0.5, 0.1)}, metrics={"cost/usd": 2.0})
    built.run("bad", accuracy={"mean": (0.9, 0.1)}, metrics={"cost/usd": 3.0}, status="failed")
    assert len(of(cost_chart(entries(built.runs)), "circle", "series-0")) == 2


def test_sweep_curve_follows_the_setting_and_averages_seeds(built):
    for margin, mean in ((0.1, 0.2), (0.2, 0.4), (0.4, 0.6)):
        swept(built, margin, mean)
    swept(built, 0.4, 1.0, config={"seed": 1})
    (chart,) = sweep_charts(entries(built.runs))
    assert chart.title == "By keep.ifd_max.margin"
    first, second, third = of(chart, "circle", "series-0")[:3]
    assert (third.geometry["cx"] - first.geometry["cx"]) / (
        second.geometry["cx"] - first.geometry["cx"]
    ) == pytest.approx(3, abs=0.01)
    assert (first.geometry["cy"] - third.geometry["cy"]) / (
        first.geometry["cy"] - second.geometry["cy"]
    ) == pytest.approx(3, abs=0.01)
    assert third.title == "2 runs 0.800 ± 0.071"


def test_sweep_other_settings_make_further_curves(built):
    for lr in (1, 2):
        for margin in (0.1, 0.2, 0.3):
            swept(built, margin, margin * lr, config={"trainer": {"lr": lr}})
    (chart,) = sweep_charts(entries(built.runs))
    assert [key.name for key in chart.legends[0].keys] == ["trainer.lr=1", "trainer.lr=2"]
    assert len(of(chart, "path", "series-1")) == 2


@pytest.mark.parametrize("margins", [(0.1, 0.2), ("a", "b", "c"), (0.1, 0.1, 0.1)])
def test_sweep_without_three_numbers_has_no_chart(built, margins):
    for margin in margins:
        swept(built, margin, 0.5)
    assert sweep_charts(entries(built.runs)) == []


def test_sweep_seeds_alone_are_no_sweep(built):
    for seed in range(4):
        swept(built, 0.1, 0.5, config={"seed": seed})
    assert sweep_charts(entries(built.runs)) == []


def paired(built, teacher, student, mean, **changes):
    choices = {"teacher": teacher, "student": student}
    return built.run(f"{teacher}-{student}", accuracy={"mean": (mean, 0.1)}, choices=choices, **changes)


def test_pairings_average_the_runs_of_a_pair(built):
    paired(built, "t1", "s1", 0.2), paired(built, "t1", "s1", 0.4)
    paired(built, "t2", "s1", 0.5), paired(built, "t1", "s2", 0.6)
    chart = pairing_chart(entries(built.runs))
    assert sorted(mark.title for mark in of(chart, "rect", "cell")) == [
        "t1, s1: 0.300, 2 runs",
        "t1, s2: 0.600, 1 runs",
        "t2, s1: 0.500, 1 runs",
    ]
    depths = {mark.title[:6]: mark.geometry["fill-opacity"] for mark in of(chart, "rect", "cell")}
    assert depths["t1, s2"] > depths["t2, s1"] > depths["t1, s1"] > 0


def test_pairings_tell_models_of_one_choice_apart(built):
    for model in ("a", "b"):
        paired(built, "openai", "weak", 0.5, overrides=[f"teacher.model={model}"])
        paired(built, "openai", "strong", 0.5, overrides=[f"teacher.model={model}"])
    assert len(of(pairing_chart(entries(built.runs)), "rect", "cell")) == 4


def test_pairings_one_student_is_no_matrix(built):
    paired(built, "t1", "s1", 0.2), paired(built, "t2", "s1", 0.4)
    assert pairing_chart(entries(built.runs)) is None
