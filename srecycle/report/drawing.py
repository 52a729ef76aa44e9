"""A chart as an SVG file that stands alone: its own style, and the page's theme where it is shown in one."""

from functools import cache
from pathlib import Path

from markupsafe import Markup

from srecycle.report.charts import Chart
from srecycle.report.html import templates

_STYLE = Path(__file__).parent / "templates" / "report.css"


def svg(chart: Chart) -> str:
    """Return the SVG's text, with its title, its legend and its caption. The same chart gives the same text."""
    return templates().get_template("figure.svg.j2").render(chart=chart, style=_style())


@cache
def _style() -> Markup:
    """Return what the report's style sheet says of charts: its colours, and the rules of their marks."""
    text = _STYLE.read_text(encoding="utf-8")
    root = text[text.index(":root {") : text.index("}", text.index(":root {")) + 1]
    marks = ("rect.", ".version-", ".verdict-", ".series-", ".fault-")
    rules = [
        line.strip().removeprefix(".chart ") for line in text.splitlines() if line.startswith((".chart .", *marks))
    ]
    return Markup("\n".join([root, "text { font-family: system-ui, sans-serif; font-size: 12.5px; }", *rules]))
