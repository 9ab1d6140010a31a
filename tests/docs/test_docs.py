"""What the documents say is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.docs import PAGE, with_table
from helpers.places import ROOT

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("d*/*.md"),
        *ROOT.glob("results/*.md"),
        *ROOT.glob(".github/*.md"),
    ]
)


def test_the_page_of_settings_is_made_from_the_settings() -> None:
    assert PAGE.read_text("utf-8") == with_table(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_is_on_the_page_of_commands() -> None:
    from bench.cli.main import COMMANDS

    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert bench("--help").code == 0
    for name in COMMANDS:
        assert f"`bench {name}" in page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 130
