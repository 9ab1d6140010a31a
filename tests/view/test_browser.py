"""`bench view` in a real browser: Chromium, where there is one. It is the command that serves."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import assert_readable, needs_chromium, opened_page
from helpers.command import PATIENCE
from helpers.matrix import matrix
from helpers.reporting import save_pictures, store_run
from helpers.runs import store
from helpers.studies import store_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [needs_chromium, pytest.mark.long]

CLASSES = ["<b onclick=alert(1)>ant", "bee", "cat"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    data = save_pictures(folder / "data", CLASSES, 6)
    trained = {"backbone": "a-trained-classifier"}
    made = [
        store_run(folder / "results", "zero", data, CLASSES, errors=True, backbone="a-model-first"),
        store_run(folder / "results", "trained", data, CLASSES, gap=0.2, draws=3, **trained),
    ]
    store_study(folder / "results", made)
    store(folder / "results", [0, 1, 2, 0], [0, 1, 2, 1], dataset="growing", complete=False)
    return folder / "results"


@pytest.fixture(scope="module")
def address(results: Path) -> Iterator[str]:
    """The command under way; Ctrl-C ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "view", "--results", str(results), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "500"},
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    yield next(word for word in said[0].split() if word.startswith("http://127.0.0.1:"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert said[1:3] == ["\n", "Next:\n"]
    assert (process.returncode, out, err) == (0, "", "")


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The first page; at the end nothing else was asked for anything, and nothing went wrong."""
    with opened_page(browser, address, own=(address,)) as opened:
        yield opened


def follow(page: Any, link: Any) -> None:
    """Clicks what leads to another page and waits until that page is loaded.

    A click alone returns once the new page begins to arrive, and half a page may be read then.
    """
    with page.expect_navigation():
        link.click()


def test_a_page_keeps_itself_up_to_date(page: Any, results: Path) -> None:
    row = page.locator(".runs tbody tr", has_text="growing")
    assert "4 of 4" not in row.inner_text() and "75.0" in row.inner_text()
    journal = next(results.glob("growing-*")) / "samples.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    row.get_by_text("command").click()
    journal.write_bytes(b"".join(lines[:3]))  # as if one image were not decided yet
    playwright.expect(row).to_contain_text("3 of 4")
    playwright.expect(row).to_contain_text("100.0")
    assert row.locator("details").get_attribute("open") is not None
    assert row.locator("progress").evaluate("bar => bar.value / bar.max") == 0.75


def test_the_page_of_a_run_is_loaded_again_once_it_is_complete(
    page: Any, address: str, results: Path
) -> None:
    path = store(results, [0, 1, 2, 0], [0, 1, 2, 1], dataset="finishing")
    journal, summary = path / "samples.jsonl", path / "summary.json"
    lines, whole = journal.read_bytes(), summary.read_bytes()
    summary.unlink()
    journal.write_bytes(b"".join(lines.splitlines(keepends=True)[:2]))
    page.goto(f"{address}run?run={path.name}")
    playwright.expect(page.locator("#live")).to_contain_text("incomplete")
    assert "2 of 4" in page.locator("section.run").first.inner_text()
    journal.write_bytes(lines)
    summary.write_bytes(whole)
    playwright.expect(page.locator("#live")).to_contain_text("complete")
    playwright.expect(page.locator("section.run").first).not_to_contain_text("2 of 4")
    assert "75.0" in page.locator("section.run").first.inner_text()
    shutil.rmtree(path)


def test_runs_are_found_and_sorted(page: Any) -> None:
    page.get_by_label("Find").fill("pictures")
    follow(page, page.get_by_role("button", name="Show"))
    follow(page, page.get_by_role("link", name="Accuracy"))
    names = page.locator(".runs tbody th a").all_inner_texts()
    assert names == ["trained", "zero"]
    follow(page, page.get_by_role("link", name="Accuracy"))
    assert page.locator(".runs tbody th a").all_inner_texts() == names[::-1]
    assert page.get_by_label("Find").input_value() == "pictures"


def test_a_run_shows_its_mistakes(page: Any) -> None:
    follow(page, page.get_by_role("link", name="zero"))
    assert page.locator("h1").inner_text() == "zero"
    pictures = page.locator(".pictures img")
    assert pictures.count() > 0
    playwright.expect(pictures.first).to_have_js_property("naturalWidth", 128)
    assert page.locator("figure > svg").count() == 1  # the errors by noise level
    page.get_by_role("combobox", name="True").fill("bee")
    page.get_by_label("Show").select_option("all")
    follow(page, page.get_by_role("button", name="Show"))
    shown = page.locator(".pictures li").evaluate_all("all => all.map(one => one.dataset.true)")
    assert shown == ["bee"] * 6


def test_two_runs_stand_side_by_side(page: Any) -> None:
    follow(page, page.locator("tr", has_text="zero").get_by_role("link", name="compare with…"))
    follow(
        page, page.locator("tr", has_text="trained").get_by_role("link", name="compare", exact=True)
    )
    assert "McNemar" in page.locator("main").inner_text()
    pairs = page.locator(".pairs li")
    assert pairs.count() > 0
    assert "A: ✗" in pairs.first.inner_text() and "B: ✓" in pairs.first.inner_text()


@pytest.mark.parametrize("scheme", matrix(["light", "dark"], ["dark"]))
@pytest.mark.parametrize(
    "where",
    matrix(["", "run?run=zero", "compare?a=zero&b=trained", "study?study=small"], ["run?run=zero"]),
)
def test_readable_on_any_screen(browser: Any, address: str, where: str, scheme: str) -> None:
    assert_readable(browser, address + where, scheme)
