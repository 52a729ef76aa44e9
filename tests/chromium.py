"""A page in headless Chromium, driven as its reader would drive it: the machine's own browser, over DevTools."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
LAPTOP = {"width": 1366, "height": 768}


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open page, what it said (console messages, errors that nothing caught), and what it asked for but itself."""

    page: Any
    said: list[str] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; skip the test where there is none, or nothing to drive it with."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"there is no Chromium on this machine (none of {', '.join(PROGRAMS)} is on the PATH)")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[dev]'")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, path: Path, **options: Any) -> Iterator[Opened]:
    """Open a file in a window of its own, on a laptop's screen."""
    context = browser.new_context(**{"viewport": LAPTOP, **options})
    context.set_default_timeout(10_000)
    found = Opened(page=context.new_page())
    found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.said.append(f"error: {error}"))
    found.page.on("request", lambda request: found.fetched.append(request.url))
    try:
        found.page.goto(path.as_uri())
        found.fetched.remove(path.as_uri())
        yield found
    finally:
        context.close()
