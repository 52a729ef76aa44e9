"""One page of several studies: everything inside, nothing fetched, nothing run."""

import base64
import re
from pathlib import Path

import pytest

from srecycle.study.__main__ import main

SVG = "<svg xmlns='http://www.w3.org/2000/svg'><text>drawn</text></svg>"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name, text in {
        "first": "# One\n\n[two](../second/README.md) [plan](study.toml) [web](https://example.org/x#y)\n\n![F](f.svg)\n",
        "second": "# Two\n\n<!-- results -->\n\n| a | b |\n|---|---|\n| 1 | <script>x()</script> |\n\n"
        "<!-- /results -->\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(text)
    (tmp_path / "first" / "f.svg").write_text(SVG)
    (tmp_path / "findings.md").write_text("# Learnt\n\n[the second](second)\n")
    return tmp_path


def _page(studies: Path, *given: str) -> str:
    out = studies / "page.html"
    assert main(["report", *(str(studies / one) for one in given), "--out", str(out), "--title", "T & U"]) == 0
    return out.read_text()


def test_report_holds_pages_tables_and_figures(studies: Path) -> None:
    page = _page(studies, "findings.md", "first", "second")
    assert re.findall(r'<article id="(\w+)">', page) == ["findings", "first", "second"]
    assert re.findall(r"<h1>(.+?)</h1>", page) == ["T &amp; U", "Learnt", "One", "Two"]
    assert "<td>1</td>" in page
    (held,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert base64.b64decode(held).decode() == SVG


def test_report_links_lead_to_its_sections_or_beside_it(studies: Path) -> None:
    page = _page(studies, "findings.md", "first", "second")
    links = re.findall(r'<a href="([^"]+)">(?:the second|two|plan|web)</a>', page)
    assert links == ["#second", "#second", "first/study.toml", "https://example.org/x#y"]
    assert 'href="second"' in _page(studies, "findings.md")


def test_report_shows_markup_and_runs_none(studies: Path) -> None:
    page = _page(studies, "second")
    assert "&lt;script&gt;x()&lt;/script&gt;" in page and "<script" not in page
    assert "results --" not in page and "default-src 'none'" in page


@pytest.mark.parametrize("broken", ["no page", "no figure", "a figure of another kind"])
def test_report_of_what_cannot_be_read_says_so(studies: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    if broken == "no page":
        (studies / "first" / "README.md").unlink()
    elif broken == "no figure":
        (studies / "first" / "f.svg").unlink()
    else:
        (studies / "first" / "README.md").write_text("![F](study.toml)")
    assert main(["report", str(studies / "first"), "--out", str(studies / "page.html")]) == 2
    told = capsys.readouterr().err
    assert "srecycle-study: error: " in told and str(studies / "first") in told
    assert not (studies / "page.html").exists()
