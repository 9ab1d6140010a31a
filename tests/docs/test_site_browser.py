"""The documentation site: it is built, and works in a real browser, without a network."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import assert_fits, needs_chromium, opened_page
from helpers.pages import hook
from helpers.places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


def opened(browser: Any, site: Path, page: str, **context: Any) -> Any:
    return opened_page(browser, (site / page).as_uri(), own=(site.as_uri(),), **context)


def test_it_is_built_without_a_warning(site: Path) -> None:
    assert (site / "index.html").is_file()


def test_no_page_shows_how_it_is_made(site: Path) -> None:
    broken = {
        path.relative_to(site).as_posix(): words
        for path in site.glob("**/*.html")
        if (words := re.findall(hook("site").BROKEN, unescape(path.read_text("utf-8"))))
    }
    assert broken == {}


@needs_chromium
def test_every_link_leads_to_a_page(browser: Any, site: Path) -> None:
    with opened(browser, site, "index.html") as page:  # it has the whole navigation
        links = page.eval_on_selector_all("a[href]", "found => found.map(a => a.href)")
    files = {link.split("#")[0] for link in links if link.startswith("file:")}
    assert len(files) > 35
    missing = {link for link in files if not Path(link.removeprefix("file://")).is_file()}
    assert missing == set()


@needs_chromium
def test_the_first_page_can_be_read_by_all(browser: Any, site: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    theme = {"rules": {"landmark-unique": {"enabled": False}}}  # its buttons that copy code
    found = axe.Axe().run(page, context=".md-content article", options=theme)
    assert found.violations_count == 0, found.generate_report()
    page.close()


@needs_chromium
def test_every_page_fits_any_screen(browser: Any, site: Path) -> None:
    with opened(browser, site, "index.html") as page:
        for path in sorted({*site.glob("**/*.html")} - {site / "404.html"}):
            page.goto(path.as_uri())
            assert_fits(page)
