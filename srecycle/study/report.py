"""One page of several studies: what their READMEs say, with tables and figures, in a file that fetches nothing.

    srecycle-study report experiments/findings.md experiments/ablation --out experiments/report.html

A folder stands for the README.md in it. Links from one given page to another stay inside the file.
"""

import argparse
import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markupsafe import Markup

from srecycle import __version__
from srecycle.errors import UserError
from srecycle.progress import say
from srecycle.report.templating import TEMPLATES, templates

_COMMENT = re.compile(r"^<!--.*?-->\n?", re.MULTILINE)
_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command is given."""
    parser.add_argument("pages", metavar="PAGE", type=Path, nargs="+", help="a study's folder, or a Markdown file")
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help="the HTML file to write")
    parser.add_argument("--title", default="Studies")


def run(options: argparse.Namespace) -> None:
    """Write the file. Raises UserError where a page or a figure can't be read, or the file not be written."""
    out = options.out.expanduser().absolute()
    html = rendered([one.expanduser().absolute() for one in options.pages], out.parent, options.title)
    try:
        out.write_text(html, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"{out}: {error.strerror}; give a file that can be written") from error
    say(f"{out}: {len(options.pages)} pages, {out.stat().st_size / 2**20:.1f} MiB")


def rendered(pages: Sequence[Path], beside: Path, title: str) -> str:
    """Return the page, whose links to other files are as from the folder `beside`."""
    files = {(page / "README.md" if page.is_dir() else page): anchor(page) for page in pages}
    sections = [{"anchor": name, "html": _section(file, files, beside)} for file, name in files.items()]
    style = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    template = templates().get_template("studies.html.j2")
    return template.render(version=__version__, title=title, sections=sections, style=style)


def anchor(page: Path) -> str:
    """Return what a page is called inside the file."""
    return page.name if page.is_dir() else page.stem


def _section(file: Path, files: dict[Path, str], beside: Path) -> Markup:
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = reader.parse(_COMMENT.sub("", _read(file).decode("utf-8")))
    for token in (child for one in tokens for child in one.children or ()):
        if token.type == "image":
            token.attrs["src"] = _inside(_target(file, str(token.attrs["src"])))
        elif token.type == "link_open":
            token.attrs["href"] = _link(file, str(token.attrs["href"]), files, beside)
    return Markup(reader.renderer.render(tokens, reader.options, {}))


def _target(file: Path, written: str) -> Path:
    return Path(os.path.normpath(file.parent / unquote(written.partition("#")[0])))


def _inside(figure: Path) -> str:
    """Return a figure as a URI that holds it. Raises UserError where it is no figure that can be read."""
    if figure.suffix not in _KINDS:
        raise UserError(f"{figure} is no figure that the page can hold: expected {' or '.join(_KINDS)}")
    return f"data:{_KINDS[figure.suffix]};base64,{base64.b64encode(_read(figure)).decode()}"


def _link(file: Path, written: str, files: dict[Path, str], beside: Path) -> str:
    """Return a link as it leads from the page: to one of its sections, or to a file beside it."""
    if "://" in written or written.startswith("#"):
        return written
    target = _target(file, written)
    for one in (target, target / "README.md"):
        if one in files:
            return f"#{files[one]}"
    return os.path.relpath(target, beside)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}; give studies' folders, or Markdown files") from error
