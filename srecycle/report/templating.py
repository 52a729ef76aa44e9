"""The report's templates: everything that is put into them is escaped, and what is hidden in a text is made visible."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from srecycle.report.comparison import cut, number, spoken

TEMPLATES = Path(__file__).parent / "templates"


def templates() -> Environment:
    """Return the environment of the report's templates: it escapes, and makes what is hidden visible."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(number=number, spoken=spoken, share=lambda value: f"{value:.1%}", cut=cut)
    return environment


_HIDDEN = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_TURNING = {code: f"[U+{code:04X}]" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_TRANSLATED = {**_HIDDEN, **_TURNING}


def _visible(value: Any) -> Any:
    """Make control characters visible, and those that turn the direction of the text around them harmless."""
    return value.translate(_TRANSLATED) if isinstance(value, str) and not isinstance(value, Markup) else value
