"""A real browser: Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers.command import PATIENCE

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@contextmanager
def opened_browser() -> Iterator[Any]:
    """Start the browser, and end it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    playwright.expect.set_options(timeout=1000 * PATIENCE)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * PATIENCE
        )
        yield browser
        browser.close()


def assert_readable(browser: Any, address: str, width: int, scheme: str) -> None:
    """Check for no sideways scrolling, and for no violation of WCAG 2.1 AA that axe-core finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # axe is a script of ours, which the page's own policy would refuse.
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(part) for part in background.strip("rgb()").split(",")]
    assert (max(levels) < 60) if scheme == "dark" else (min(levels) > 200)
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    context.close()


@contextmanager
def opened_page(browser: Any, address: str, own: tuple[str, ...], **context: Any) -> Iterator[Any]:
    """Open a page; at the end nothing foreign was asked for anything, and nothing went wrong.

    Args:
        browser: in which.
        address: of the page.
        own: how the addresses begin that may be asked.
        context: of the browser, such as its `viewport`.
    """
    made = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **context})
    made.set_default_timeout(1000 * PATIENCE)
    page = made.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert said == []
    assert {url for url in asked if not url.startswith((*own, "data:"))} == set()
    made.close()
