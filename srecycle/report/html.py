"""The report: one self-contained HTML file that compares runs and shows what each of them did.

In: runs. Out: a file with its style, script and figures inside, which fetches nothing and looks the same for the same
runs: its dates are those of the runs. Everything that came from data, a teacher or a command line is untrusted: the
template escapes all of it, control characters are made visible, and the page's policy lets no script run but its own.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from srecycle import __version__
from srecycle.errors import UserError
from srecycle.report.comparison import entries, finding
from srecycle.report.decisions import Case
from srecycle.report.details import details, shared_settings
from srecycle.report.overview import overview
from srecycle.report.runs import Run
from srecycle.report.sections import sections
from srecycle.report.tables import forget
from srecycle.report.templating import TEMPLATES, templates

_SCRIPTS = ("report.js", "saving.js", "browser.js")


def write_report(runs: Sequence[Run], path: Path, *, paper: bool = False) -> Path:
    """Write the report of these runs, whole or not at all, and return its path. Raises UserError where it can't.

    With `paper` it also sets the runs beside the paper's tables.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name may hold half of a surrogate pair (JSON allows it), which no encoding can write.
        temporary.write_text(rendered(runs, paper=paper), encoding="utf-8", errors="backslashreplace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"the report {path} can't be written: {error.strerror}") from error
    return path


def rendered(runs: Sequence[Run], *, paper: bool = False) -> str:
    """Return the report as HTML. The same runs over the same store give the same text."""
    found = entries(runs)
    environment = templates()
    browser: Any = environment.get_template("case.html.j2").module
    try:
        return environment.get_template("report.html.j2").render(
            version=__version__,
            title=_title(runs),
            when=_when(runs),
            stores=sorted({str(run.store) for run in runs}),
            finding=finding(found),
            overview=overview(found, shared_settings(runs)),
            sections=sections(found, paper=paper),
            details=list(details(found, lambda one: _case(browser, one))),
            **_own(),
        )
    finally:
        forget()


def _case(browser: Any, one: Case) -> Markup:
    return Markup(browser.case(one))


def _own() -> dict[str, str]:
    """Return the page's own style and script, and the digest by which its policy knows the script."""
    script = "\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return {
        "style": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "script": Markup(script),
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _title(runs: Sequence[Run]) -> str:
    groups = {run.group for run in runs}
    if len(runs) == 1:
        return runs[0].name
    return groups.pop() or f"{len(runs)} runs" if len(groups) == 1 else f"{len(runs)} runs"


def _when(runs: Sequence[Run]) -> str:
    """Return when the runs started, first and last, as their ids say (UTC)."""
    moments = sorted(moment for run in runs if (moment := _moment(run)))
    if not moments:
        return ""
    first, last = (f"{moment:%Y-%m-%d %H:%M}" for moment in (moments[0], moments[-1]))
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def _moment(run: Run) -> datetime | None:
    try:
        return datetime.strptime(run.id[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return None
