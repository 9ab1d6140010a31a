"""The report in a real browser: Chromium, where there is one."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from helpers.browser import assert_readable, needs_chromium, opened_page
from helpers.command import bench
from helpers.matrix import matrix
from helpers.reporting import save_pictures, store_reported, store_run
from helpers.studies import store_study

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [needs_chromium, pytest.mark.long]

CLASSES = ["<b onclick=alert(1)>ant", "bee", "cat", "dog"]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on runs of every kind, made by the command."""
    folder = tmp_path_factory.mktemp("report")
    data = save_pictures(folder / "data", CLASSES, 8)
    results = folder / "results"
    trained = {"trained_on": "pictures/train", "backbone": "a-trained-classifier"}
    studied = [
        store_run(results, "zero", data, CLASSES, errors=True, backbone="a-diffusion-model"),
        store_run(results, "trained", data, CLASSES, gap=0.2, draws=3, **trained),
    ]
    store_study(results, studied)
    store_run(results, "subset", data, CLASSES, n=16, draws=5)
    store_run(results, "replayed", data, CLASSES, draws=8, replayed_from="zero")
    store_reported(results)
    (results / "broken").mkdir()
    (results / "broken" / "manifest.json").write_text("{")
    out = folder / "report.html"
    done = bench("report", "--results", results, "--out", out)
    assert done.code == 0, done.err
    return out.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, opened; at the end nothing was asked of any network, and nothing went wrong."""
    with opened_page(browser, address, own=(address,)) as opened:
        yield opened


def column(page: Any, name: str) -> Any:
    return page.locator(".board th", has=page.get_by_role("button", name=name, exact=True))


def values(page: Any, name: str) -> list[str]:
    """Return what stands in a column of the leaderboard, from top to bottom."""
    index = column(page, name).evaluate("head => head.cellIndex")
    found: list[str] = page.locator(".board tbody tr").evaluate_all(
        f"rows => rows.map(row => row.cells[{index}].dataset.value)"
    )
    return found


def shown(page: Any, run: int = 0) -> list[tuple[str, str]]:
    """Return (true, predicted) of the pictures of a run that are to be seen."""
    pictures = page.locator(".gallery").nth(run).locator(".pictures > li")
    found = pictures.evaluate_all(
        "all => all.filter(p => p.checkVisibility())"
        ".map(p => [p.dataset.true, p.dataset.predicted])"
    )
    return [(true, said) for true, said in found]


def test_a_click_sorts_and_another_reverses(page: Any) -> None:
    head = column(page, "cost")
    assert values(page, "key") == ["  A", "  B", "  C", "  D", "  E"]
    head.get_by_role("button").click()
    once = values(page, "cost")
    assert once == ["80.0", "32.0", "20.0", "12.0", ""]  # unknown last
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "key").get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert values(page, "cost") == [*once[3::-1], ""]
    assert head.get_attribute("aria-sort") == "ascending"
    column(page, "model").get_by_role("button").click()
    assert values(page, "model") == sorted(values(page, "model"))


def test_the_keyboard_sorts(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    while page.evaluate("document.activeElement.textContent") != "accuracy, %":
        page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{style}.outlineStyle") == "solid"
    page.keyboard.press("Enter")
    down = [float(v) for v in values(page, "accuracy, %")]
    assert down == sorted(down, reverse=True) and len(set(down)) > 2
    page.keyboard.press("Space")
    assert [float(v) for v in values(page, "accuracy, %")] == sorted(down)


def test_filters_hide_the_right_pictures(page: Any) -> None:
    everything = shown(page)
    assert len(everything) == 32
    wrong = [(true, said) for true, said in everything if true != said]
    assert 0 < len(wrong) < 32
    gallery = page.locator(".gallery").first
    gallery.get_by_label("Show").select_option("wrong")
    assert shown(page) == wrong
    assert gallery.locator("output").text_content() == f"{len(wrong)} of 32 shown"
    true, said = wrong[0]
    gallery.get_by_label("True").select_option(true)
    assert shown(page) == [pair for pair in wrong if pair[0] == true]
    gallery.get_by_label("Predicted").select_option(said)
    assert set(shown(page)) == {(true, said)}
    assert len(shown(page, run=1)) == 16  # the other galleries are left alone
    gallery.get_by_label("Show").select_option("right")
    assert shown(page) == []


@pytest.mark.parametrize("scheme", matrix(["light", "dark"], ["dark"]))
def test_readable_on_any_screen(browser: Any, address: str, scheme: str) -> None:
    assert_readable(browser, address, scheme)


def test_it_opens_with_the_question_and_the_answer(page: Any) -> None:
    assert page.locator("h1").inner_text() == "Which of 4 runs classifies pictures best?"
    heads = page.locator("h1, h2").all_inner_texts()
    assert heads[1:3] == ["The answer", "What supports it"] and "Leaderboard" in heads
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    answer = page.locator(".answer")
    box = answer.bounding_box()
    assert box["y"] < 200 and answer.locator("svg").bounding_box()["y"] < 900  # the first screen
    best = values(page, "accuracy, %")[0]
    texts = answer.locator("svg text").all_text_contents()
    assert any(f"{100 * float(best):.1f} (" in text for text in texts)
    assert "It was right for" in answer.inner_text() and "95 % interval" in answer.inner_text()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on a run of 300 pictures."""
    folder = tmp_path_factory.mktemp("large")
    classes = [f"class {index:02d}" for index in range(30)]
    data = save_pictures(folder / "data", classes, 10)
    store_run(folder / "results", "large", data, classes, gap=0.05)
    out = folder / "report.html"
    done = bench("report", "--results", folder / "results", "--out", out, "--images", 300)
    assert done.code == 0, done.err
    return out.as_uri()


def test_pictures_load_as_a_reader_comes_to_them(browser: Any, large: str) -> None:
    with opened_page(browser, large, own=(large,)) as page:
        pictures, output = page.locator(".pictures img"), page.locator(".gallery output")
        assert (pictures.count(), output.inner_text()) == (120, "300 of 300 shown")
        page.get_by_label("Predicted").select_option("class 07")  # also of those not loaded yet
        true = page.locator(".pictures li").evaluate_all("all => all.map(p => p.dataset.predicted)")
        assert set(true) == {"class 07"} and f"{len(true)} of 300 shown" == output.inner_text()
        page.get_by_label("Predicted").select_option("")
        page.locator(".more-pictures").scroll_into_view_if_needed()
        playwright.expect(pictures.nth(200)).to_be_attached()  # scrolling is enough
        while page.locator(".more-pictures").is_visible():
            page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        assert pictures.count() == 300
        assert set(pictures.evaluate_all("all => all.map(i => i.naturalWidth)")) == {128}


def test_it_reads_well_without_scripts(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert not page.locator(".filters").first.is_visible()
    assert page.locator(".pictures > li").first.is_visible()
    assert page.locator(".board tbody tr").count() == 5
    context.close()
