"""The site: every page has its place, links lead to pages, its picture is what was printed."""

import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from helpers.blocks import unknown
from helpers.pages import hook
from helpers.places import ROOT

NAVIGATION = re.findall(r"^ +- (?:.+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    return hook("site")


def test_every_page_is_in_the_navigation_once(site: ModuleType) -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
    pages |= {f"design/{path.name}" for path in ROOT.glob("design/*.md")}
    pages |= set(site.MOVED.values())
    assert sorted(NAVIGATION) == sorted(pages)


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[a](racing.md)", "[a](racing.md)"),
        ("[a](../../design/racing.md#digits)", "[a](../design/racing.md#digits)"),
        ("[a](../../README.md)", "[a](../index.md)"),
        ("[code](../../bench/errors.py)", "code"),
        ("![p](../../design/x.png)", "![p](../design/x.png)"),
        ("[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
        ("[a](nowhere.md)", "[a](nowhere.md)"),
    ],
)
def test_links_lead_to_pages(site: ModuleType, link: str, becomes: str) -> None:
    known = {"index.md", "concepts/racing.md", "design/racing.md", "design/x.png"}
    assert site.relink(link, "docs/concepts/wrong.md", "concepts/wrong.md", known) == becomes


def test_the_page_of_options_shows_what_help_shows(site: ModuleType) -> None:
    text = hook("options").options()
    assert "| `--strategy STRATEGY` |" in text and "| `--loss " in text
    assert "\n#### bench results add {" in text
    example = "```text\nbench run digits                                   small bundled dataset\n"
    assert example in text  # a line for each example
    assert not re.search(site.BROKEN, text)


@pytest.fixture(scope="module")
def terminal() -> ModuleType:
    return hook("terminal")


def test_the_commands_that_it_shows_are_known(terminal: ModuleType) -> None:
    lines = terminal.shown(terminal.PICTURE.read_text("utf-8")).split("\n")
    commands = [line.split(": ", 1)[1] for line in lines if re.match(r"  .+: bench ", line)]
    assert len(commands) == 2 and lines[0] == f"$ {terminal.COMMAND}"
    for command in commands:
        assert not unknown(shlex.split(command)[1:])


@pytest.mark.slow
def test_the_picture_is_what_the_command_prints(terminal: ModuleType, tmp_path: Path) -> None:
    picture = terminal.PICTURE.read_text("utf-8")
    assert terminal.shown(picture) == terminal.shown(terminal.draw(terminal.printed(tmp_path)))
