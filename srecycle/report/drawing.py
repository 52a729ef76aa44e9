"""A chart as an SVG file that stands alone, for papers and notebooks: its own style, title, legends and caption.

Colours are written out, those of the light theme: programs that are no browsers know neither CSS variables nor
`light-dark`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import wrap

from markupsafe import Markup

from srecycle.report.charts import Chart, Legend
from srecycle.report.templating import TEMPLATES, templates

_CHARTS = (".chart .", "rect.", ".version-", ".verdict-", ".series-", ".fault-")
_THEMED = re.compile(r"light-dark\(([^,()]+),[^()]+\)")
_DEFINED = re.compile(r"^\s*(--[\w-]+): ([^;]+);", re.MULTILINE)
_NAMED = re.compile(r"var\((--[\w-]+)\)")

_LINE, _LETTER, _SWATCH, _SPACE = 19.0, 7.0, 16.0, 22.0


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A word of a legend: where it stands, and the style of its swatch ("" where it has none)."""

    x: float
    y: float
    style: str
    text: str


def svg(chart: Chart) -> str:
    """Return the SVG's text. The same chart gives the same text."""
    caption = wrap(chart.caption, int(chart.width / (_LETTER - 0.6)))
    head = 36 + _LINE * len(caption)
    keys, lines = _placed(chart.legends, head, chart.width)
    return (
        templates()
        .get_template("figure.svg.j2")
        .render(chart=chart, caption=caption, keys=keys, head=head + _LINE * lines + 8, line=_LINE, style=_style())
    )


def _placed(legends: Sequence[Legend], head: float, width: float) -> tuple[list[_Placed], int]:
    """Return the legends' words, line by line, and how many lines they take."""
    placed: list[_Placed] = []
    line = 0
    for legend in legends:
        line, x = line + 1, 0.0
        for style, text in [("", legend.title)] * bool(legend.title) + [(key.style, key.name) for key in legend.keys]:
            needed = (_SWATCH if style else 0.0) + _LETTER * len(text)
            if x and x + needed > width:
                line, x = line + 1, 0.0
            placed.append(_Placed(x=x, y=head + _LINE * (line - 1) + 10, style=style, text=text))
            x += needed + _SPACE
    return placed, line


@cache
def _style() -> Markup:
    """Return what the report's style sheet says of charts, in the light theme's colours."""
    sheet = _THEMED.sub(r"\1", (TEMPLATES / "report.css").read_text(encoding="utf-8"))
    values = dict(_DEFINED.findall(sheet))
    rules = [line.strip() for line in sheet.splitlines() if line.startswith(_CHARTS)]
    plain = _NAMED.sub(lambda match: values[match[1]], "\n".join(rules))
    return Markup(f"text {{ font-family: system-ui, sans-serif; font-size: 12.5px; }}\n{plain}")
