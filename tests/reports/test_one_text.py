"""A run's accuracy has one text on every surface, and its full precision in every file of data."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.runs import store

import bench as toolkit
from bench.view.pages import Pages
from bench.view.stored import Stored

LABELS = [i % 3 for i in range(210)]
WRONG = [(y + 1) % 3 if i < 29 else y for i, y in enumerate(LABELS)]
ACCURACY = 181 / 210
TEXT, INTERVAL = "86.2", "86.2 (80.9–90.2)"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store a run with 181 of 210 images right, and another one to compare it with."""
    results = tmp_path_factory.mktemp("results")
    store(results, LABELS, LABELS, backbone="other")
    return store(results, LABELS, WRONG, prompts_hash=None)


def command(*words: str) -> Callable[[Path], str]:
    """Return a function that runs a command, in which RUN stands for the run's folder."""

    def text(run: Path) -> str:
        done = bench(*(word.replace("RUN", str(run)) for word in words), "--results", run.parent)
        assert done.code == 0, done.err
        return done.out

    return text


def report(run: Path) -> str:
    page = run.parent / "page.html"
    assert bench("report", run, "--out", page, "--results", run.parent).code == 0
    return page.read_text("utf-8")


def view(path: str) -> Callable[[Path], str]:
    """Return a function that answers with a page of `bench view`."""
    return lambda run: (
        Pages(Stored(run.parent, {})).answer(path, {"run": run.name}).content.decode()
    )


def notebook(run: Path) -> str:
    return toolkit.load_run(run, results=str(run.parent))._repr_html_()


def every_eval_ever(run: Path) -> str:
    folder = run.parent / "every"
    done = bench("export", run, "--format", "every-eval-ever", "--out", folder)
    assert done.code == 0, done.err
    [document] = folder.rglob("*.json")
    return document.read_text("utf-8")


HUB = ("--format", "eval-results", "--set", "hub_dataset=owner/digits")
SURFACES: dict[str, Callable[[Path], str]] = {
    "show": command("show", "RUN"),
    "leaderboard": command("leaderboard"),
    "wide leaderboard": command("leaderboard", "--wide"),
    "markdown": command("leaderboard", "--format", "markdown"),
    "html": command("leaderboard", "--format", "html"),
    "wide runs": command("runs", "--wide"),
    "latex": command("export", "RUN", "--format", "latex"),
    "metric": command("show", "RUN", "--metric", "accuracy"),
    "report": report,
    "view": view("/run"),
    "list of view": view("/"),
    "notebook": notebook,
}
ALONE: dict[str, Callable[[Path], str]] = {
    "runs": command("runs"),
    "compare": command("compare", "RUN", "RUN"),
    "representation": lambda run: repr(toolkit.load_run(run, results=str(run.parent))),
}
DATA = {
    "json": command("show", "RUN", "--json"),
    "leaderboard json": command("leaderboard", "--json"),
    "leaderboard csv": command("leaderboard", "--format", "csv"),
    "runs json": command("runs", "--json"),
    "compare json": command("compare", "RUN", "RUN", "--json"),
    "model card": command("export", "RUN", "--format", "model-index"),
    "result on the Hub": command("export", "RUN", *HUB),
    "Every Eval Ever": every_eval_ever,
}


def plain(text: str) -> str:
    """Return what a reader sees of a text in HTML, LaTeX or neither."""
    text = unescape(re.sub(r"<(style|script)\b.*?</\1>|<[^>]+>", "", text, flags=re.S))
    return " ".join(text.replace("--", "–").split())


@pytest.mark.parametrize("surface", SURFACES)
def test_people_read_one_text_with_its_interval(surface: str, run: Path) -> None:
    text = plain(SURFACES[surface](run))
    assert INTERVAL in text
    assert not re.search(r"0\.86[12]", text), "a share beside the per cent"


@pytest.mark.parametrize("surface", ALONE)
def test_or_without_it(surface: str, run: Path) -> None:
    text = plain(ALONE[surface](run))
    assert TEXT in text and not re.search(r"0\.86[12]", text)


@pytest.mark.parametrize("surface", DATA)
def test_data_has_every_digit(surface: str, run: Path) -> None:
    assert str(ACCURACY) in DATA[surface](run)
