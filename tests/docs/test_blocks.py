"""The commands in the documents work, and print what the documents show.

`pytest -m slow tests/docs` runs the sessions: each command is a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.blocks import Typed, commands, run, same, steps, unknown
from helpers.places import ROOT

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("design/*.md"),
        ROOT / "results/README.md",
    ]
)
SESSIONS = [
    page
    for page in PAGES
    if any(isinstance(step, Typed) for step in steps(page.read_text("utf-8")))
]
COMMANDS = [page for page in PAGES if commands(page)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", COMMANDS, ids=name)
def test_the_program_knows_every_command_and_option(page: Path) -> None:
    for arguments in commands(page):
        assert not unknown(arguments), arguments


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=name)
def test_sessions_print_what_they_show(page: Path, tmp_path: Path) -> None:
    for step in steps(page.read_text("utf-8")):
        if isinstance(step, Typed):
            done = run(step, tmp_path)
            plan = "--dry-run" in step.command  # ends with 2 where data or weights are missing
            allowed = (0, 2) if plan else (0,)
            assert done.code in allowed, f"$ {step.command}\n{done.out}{done.err}"
            assert same(step.printed, done.out), f"$ {step.command}\n{done.out}"
        else:
            (tmp_path / step.name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / step.name).write_text(step.text, "utf-8")
