"""Documents name files, links, commands and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.places import ROOT

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "bench/cli/glossary.md",
        *ROOT.glob("d*/**/*.md"),
        *ROOT.glob("results/*.md"),
        *ROOT.glob("studies/*/*.md"),
        *ROOT.glob(".github/*.md"),
    ]
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_toolkit_that_are_named_are_there(page: Path) -> None:
    named = r"`((?:bench|plugins|tests|benchmarks)/[\w./]*)`((?:, `\w+\.py`)*)"
    for path, beside in re.findall(named, page.read_text("utf-8")):
        files = [
            ROOT / path,
            *((ROOT / path).parent / name for name in re.findall(r"\w+\.py", beside)),
        ]
        assert not [str(file) for file in files if not file.exists()]


def test_every_command_is_on_the_page_of_commands() -> None:
    from bench.discovery.commands import own_commands

    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert bench("--help").code == 0
    for name in own_commands():
        assert f"`bench {name}" in page
