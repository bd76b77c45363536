"""A real browser, the system's Chromium, for tests of pages; where there is none they are skipped."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Set by what has to run these tests (CI): a browser that is missing there is a failure.
REQUIRED = "DEBLUR_LAB_REQUIRE_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browser_path() -> str | None:
    """Where the system's Chromium or Chrome is; None if there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def started_browser() -> Iterator[Browser]:
    """A headless browser; skips the test where there is none, unless it is required."""
    path = browser_path()
    if path is None:
        message = f"no browser: none of {', '.join(_NAMES)} is installed (Debian: apt-get install chromium)"
        if os.environ.get(REQUIRED):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Tests may run as root in a container, where Chromium's sandbox cannot.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, width: int = 1200, height: int = 900, dark: bool = False
) -> Iterator[Page]:
    """A page, which must write no error to its console."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(url)
        yield page
        assert errors == []
    finally:
        context.close()
