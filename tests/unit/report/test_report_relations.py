"""Figures over runs: cost, swept settings, surfaces over two of them, pairings of teachers and students."""

import pytest

from srecycle.report.comparison import entries
from srecycle.report.heat import pairing_chart, surface_chart
from srecycle.report.relations import cost_chart, sweep_charts


def of(chart, kind, style):
    return [mark for mark in chart.marks if mark.kind == kind and style in mark.style.split()]


def names(chart):
    return sorted(mark.text for mark in chart.marks if mark.text.startswith("r") and mark.text[1:].isdigit())


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


def test_cost_of_many_runs_names_those_that_none_beats_at_the_same_cost_or_less(built):
    for place in range(30):
        worth = {10: 0.6, 20: 0.8, 25: 0.7}.get(place, 0.5)
        built.run(f"r{place:02d}", accuracy={"mean": (worth, 0.1)}, metrics={"cost/usd": place + 1.0})
    chart = cost_chart(entries(built.runs))
    assert len(of(chart, "circle", "series-0")) == 30
    assert names(chart) == ["r00", "r10", "r20"]
    assert "Named are those that no other run beats" in chart.caption


def test_cost_where_less_is_better_names_the_lowest(built):
    for place in range(30):
        metrics = {"cost/usd": place + 1.0, "evaluate/lm/wiki/perplexity": 10.0 - (place == 5)}
        built.run(f"r{place:02d}", metrics=metrics)
    chart = cost_chart(entries(built.runs))
    assert names(chart) == ["r00", "r05"]


def test_sweep_of_many_combinations_draws_those_that_reach_highest(built):
    for lr in range(10):
        for margin in (0.1, 0.2, 0.3):
            swept(built, margin, 0.9 - lr / 20, config={"trainer": {"kind": f"k{lr}"}})
    (chart,) = sweep_charts(entries(built.runs))
    assert [key.name for key in chart.legends[0].keys] == [f"trainer.kind=k{lr}" for lr in range(8)]
    assert "2 more are not" in chart.caption


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


def test_sweep_choice_stands_for_the_settings_that_come_with_it(built):
    for teacher, knobs in (("decent", {"a": 1, "b": 1}), ("sloppy", {"a": 2, "b": 2})):
        for margin in (0.1, 0.2, 0.3):
            swept(built, margin, margin, config={"teacher": knobs}, choices={"teacher": teacher, "tracker": teacher})
    (chart,) = sweep_charts(entries(built.runs))
    assert [key.name for key in chart.legends[0].keys] == ["teacher=decent", "teacher=sloppy"]


def test_sweep_curves_are_told_apart_from_each_other_only(built):
    for margin in (0.1, 0.2, 0.3):
        swept(built, margin, margin, config={"data": "a"})
    swept(built, 0.3, 0.9, config={"data": "b"})
    (chart,) = sweep_charts(entries(built.runs))
    assert not chart.legends and len(of(chart, "path", "series-0")) == 2


def test_sweep_choice_that_changes_no_setting_makes_no_curve_of_its_own(built):
    for tracker in ("wandb", "jsonl"):
        for margin in (0.1, 0.2, 0.3):
            swept(built, margin, margin, choices={"tracker": tracker})
    (chart,) = sweep_charts(entries(built.runs))
    assert not chart.legends and len(of(chart, "path", "series-0")) == 2


def limits(built, ifd, r_ifd, mean, **changes):
    config = {"keep": {"ifd_max": {"below": ifd}, "rifd_max": {"below": r_ifd}}, **changes.pop("config", {})}
    return built.run("a", accuracy={"mean": (mean, 0.1)}, config=config, **changes)


def test_surface_has_a_cell_for_every_setting_the_darker_the_higher(built):
    for ifd in (0.8, 0.9, 1.0):
        for r_ifd in (0.8, 0.9):
            limits(built, ifd, r_ifd, ifd * r_ifd, metrics={"assemble/kept_share": 1 - ifd * r_ifd})
    chart = surface_chart(entries(built.runs))
    assert chart.title == "By keep.ifd_max.below and keep.rifd_max.below"
    cells = of(chart, "rect", "cell")
    quality, kept = cells[:6], cells[6:]
    assert [cell.title for cell in quality][:2] == ["0.8, 0.8: 0.640, 1 run", "0.9, 0.8: 0.720, 1 run"]
    assert len({(cell.geometry["x"], cell.geometry["y"]) for cell in cells}) == 12
    depths = [[cell.geometry["fill-opacity"] for cell in part] for part in (quality, kept)]
    assert depths[0][0] < depths[0][1] < depths[0][-1] and depths[1][0] > depths[1][1] > depths[1][-1]
    assert kept[0].title == "0.8, 0.8: 36.0%, 1 run"


def test_surface_averages_seeds_and_gives_other_settings_maps_of_their_own(built):
    for teacher in ("x", "y"):
        for seed in (0, 1):
            for ifd, r_ifd in ((1, 1), (1, 2), (2, 1), (2, 2)):
                limits(built, ifd, r_ifd, 0.2 + seed / 2, config={"seed": seed, "teacher": {"name": teacher}})
    chart = surface_chart(entries(built.runs))
    quality = [cell for cell in of(chart, "rect", "cell") if "0.450, 2 runs" in cell.title]
    assert len(quality) == 8
    assert [mark.text for mark in chart.marks if mark.text.startswith("teacher.name=")] == [
        "teacher.name=x",
        "teacher.name=y",
    ]


def test_surface_of_what_was_drawn_at_random_is_dots_where_it_was_tried(built):
    for place in range(6):
        limits(built, 0.5 + 0.1 * place, (place * 7 % 5) / 10, place / 10)
    chart = surface_chart(entries(built.runs))
    dots = of(chart, "circle", "tried")[:6]
    across = [mark.geometry["cx"] for mark in dots]
    assert across == sorted(across) and not of(chart, "rect", "cell")
    assert [mark.geometry["fill-opacity"] for mark in dots] == pytest.approx([0.05, 0.24, 0.43, 0.62, 0.81, 1.0])
    assert all(0 < mark.geometry["cx"] < chart.width and 0 < mark.geometry["cy"] < chart.height for mark in dots)


@pytest.mark.parametrize("points", [[(1, 1), (2, 1), (3, 1), (4, 1)], [(1, 1), (2, 2)]])
def test_surface_needs_two_numbers_and_four_settings(built, points):
    for ifd, r_ifd in points:
        limits(built, ifd, r_ifd, 0.5)
    assert surface_chart(entries(built.runs)) is None


def paired(built, teacher, student, mean, **changes):
    choices = {"teacher": teacher, "student": student}
    return built.run(f"{teacher}-{student}", accuracy={"mean": (mean, 0.1)}, choices=choices, **changes)


def test_pairings_average_the_runs_of_a_pair(built):
    paired(built, "t1", "s1", 0.2), paired(built, "t1", "s1", 0.4)
    paired(built, "t2", "s1", 0.5), paired(built, "t1", "s2", 0.6)
    chart = pairing_chart(entries(built.runs))
    assert sorted(mark.title for mark in of(chart, "rect", "cell")) == [
        "t1, s1: 0.300, 2 runs",
        "t1, s2: 0.600, 1 run",
        "t2, s1: 0.500, 1 run",
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
