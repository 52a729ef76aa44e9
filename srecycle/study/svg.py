"""A chart as an SVG file that stands alone: its own style, its title and its caption."""

from textwrap import wrap
from xml.etree import ElementTree

from srecycle.report.charts import Chart

_LINE, _MARGIN, _LETTERS = 18.0, 20.0, 170

_STYLE = """
text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 12.5px; fill: #1c2024; }
.title { font-size: 17px; font-weight: 640; }
.caption, .tick { fill: #5f6770; }
.tick { font-size: 11px; }
.heading { font-weight: 620; }
.grid { stroke: #dfe2e5; }
.cell { fill: #2457c5; stroke: #ffffff; }
.on-cell { fill: #ffffff; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""
_SERIES = ("#3468bf", "#b8521f", "#1f7a6a", "#8a4bb0", "#94720a", "#b0335f", "#4f7a1c", "#616a73")


def svg(chart: Chart) -> str:
    """Return the file's text. The same chart gives the same text."""
    caption = wrap(chart.caption, _LETTERS)
    head = 26 + _LINE * len(caption) + 10
    width, height = chart.width + 2 * _MARGIN, head + chart.height + 2 * _MARGIN
    root = ElementTree.Element(
        "svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}"
    )
    ElementTree.SubElement(root, "style").text = _STYLE + "".join(
        f".series-{place} {{ fill: {colour}; }}\n.curve.series-{place} {{ fill: none; stroke: {colour}; }}\n"
        for place, colour in enumerate(_SERIES)
    )
    ElementTree.SubElement(root, "rect", width="100%", height="100%", fill="#ffffff")
    inner = ElementTree.SubElement(root, "g", transform=f"translate({_MARGIN:g} {_MARGIN:g})")
    _text(inner, 14, "title", chart.title)
    for place, words in enumerate(caption):
        _text(inner, 36 + place * _LINE, "caption", words)
    drawing = ElementTree.SubElement(inner, "g", transform=f"translate(0 {head:g})")
    for mark in chart.marks:
        attributes = {name: str(value) for name, value in mark.geometry.items()}
        element = ElementTree.SubElement(drawing, mark.kind, {"class": mark.style, **attributes})
        if mark.title:
            title = ElementTree.SubElement(element, "title")
            title.text, title.tail = mark.title, mark.text
        else:
            element.text = mark.text
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _text(parent: ElementTree.Element, y: float, style: str, words: str) -> None:
    ElementTree.SubElement(parent, "text", {"class": style, "y": f"{y:g}"}).text = words
