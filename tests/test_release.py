"""A release's version, notes and citation agree."""

import re
import subprocess

import pytest
from helpers.places import ROOT

from bench import __version__


def test_the_version_is_said_once_and_repeated_truly() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize(("version", "code"), [(__version__, 0), ("9.9.9", 1)])
def test_release_notes_are_the_changelogs_section(version: str, code: int) -> None:
    done = subprocess.run([ROOT / ".ci" / "notes", version], capture_output=True, text=True)
    assert done.returncode == code
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert done.stdout in changelog and "## " not in done.stdout


def test_workflows_test_what_the_package_promises() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    least = re.search(r'requires-python = ">=(3\.\d+)"', project)
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text("utf-8")
    assert least and f'python: ["{least[1]}"' in workflow


def test_the_changelog_is_one_page() -> None:
    """A merge of an older branch restores lines that left: keep what it adds, and drop these."""
    assert len((ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()) <= 60
