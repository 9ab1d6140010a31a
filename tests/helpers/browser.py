"""A real browser: Chromium, where there is one."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PATIENCE = 60  # seconds for what a page shows; a missing element would hold up the tests for long
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


# Columns narrower than their longest word or eight letters, whichever is shorter.
NARROW = r"""() => {
  const pen = document.createElement('canvas').getContext('2d'), narrow = [];
  for (const cell of document.querySelectorAll('td, th')) {
    if (!cell.checkVisibility() || cell.closest('.matrix')) continue;
    const style = getComputedStyle(cell);
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    pen.font = style.font;
    const words = cell.innerText.trim().split(/[\s\/–—-]+/).map(w => pen.measureText(w).width);
    const needed = Math.min(Math.max(...words), pen.measureText('nnnnnnnn').width);
    if (cell.getBoundingClientRect().width - padding < needed - 1) narrow.push(cell.innerText);
  }
  return narrow;
}"""


def assert_fits(page: Any, widths: Iterable[int] = (1400, 768, 390)) -> None:
    """Check that a page scrolls down only, and that names in its tables are not cut to letters."""
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, page.url
        assert page.evaluate(NARROW) == [], (page.url, width)


def assert_readable(browser: Any, address: str, scheme: str) -> None:
    """Check that a page fits any screen, for its colours, and by axe-core for WCAG 2.1 AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    # axe is a script of ours, which the page's own policy would refuse.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    assert_fits(page)
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
