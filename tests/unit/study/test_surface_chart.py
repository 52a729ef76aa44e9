"""The surface's figure shows every setting once, and its file is well-formed whatever the names hold."""

from xml.etree import ElementTree

import pytest

from srecycle.report.drawing import svg
from srecycle.study.surface_chart import surface_chart
from srecycle.study.sweep import Axis

LIMIT = Axis(name="keep.a.below", values=("0.5", "1.0"))
MARGIN = Axis(name="selector.instruction.margin", values=("0", "0.1", "0.2"))
CHOICE = Axis(name="selector@selector.response", values=("<ifd>", "never"))


def lines_of(*axes):
    lines = [{"rows": 100}]
    for axis in axes:
        lines = [{**line, axis.name: value} for line in lines for value in axis.numbers or axis.values]
    return [{**line, "kept": 7 * place, "kept_share": 0.07 * place} for place, line in enumerate(lines)]


def marks(chart, style):
    return [mark for mark in chart.marks if style in mark.style.split()]


def test_chart_of_one_limit_is_a_curve_for_each_choice():
    chart = surface_chart([CHOICE, LIMIT], lines_of(CHOICE, LIMIT))
    curves = marks(chart, "curve")
    assert [mark.title for mark in curves] == ["response=<ifd>", "response=never"]
    assert len([mark for mark in chart.marks if mark.kind == "circle"]) == 4


def test_chart_of_two_limits_is_a_heat_map_that_darkens_with_the_share():
    lines = lines_of(LIMIT, MARGIN)
    cells = marks(surface_chart([LIMIT, MARGIN], lines), "cell")
    depths = [mark.geometry["fill-opacity"] for mark in cells]
    assert len(cells) == 6 and depths == sorted(depths) and depths[0] < depths[-1] == 1
    assert len({(mark.geometry["x"], mark.geometry["y"]) for mark in cells}) == 6
    assert "35 kept (35.0%)" in cells[5].title


def test_chart_of_more_axes_has_a_panel_for_each_further_choice():
    axes = [CHOICE, LIMIT, MARGIN]
    chart = surface_chart(axes, lines_of(*axes))
    cells = marks(chart, "cell")
    assert len({(mark.geometry["x"], mark.geometry["y"]) for mark in cells}) == len(cells) == 12


@pytest.mark.parametrize("axes", [[CHOICE], [LIMIT], [CHOICE, LIMIT], [CHOICE, LIMIT, MARGIN]])
def test_svg_is_well_formed_and_shows_every_text(axes):
    chart = surface_chart(axes, lines_of(*axes))
    root = ElementTree.fromstring(svg(chart))
    shown = {"".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")}
    assert chart.title in shown
    assert all(any(mark.text in text for text in shown) for mark in chart.marks if mark.text)


def test_chart_of_nothing_varied_is_none():
    assert surface_chart([], lines_of()) is None
