"""The commands in the documents work, and print what the documents show.

`pytest -m slow tests/docs` runs the sessions: each command is a process of its own.
"""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from helpers.blocks import Typed, commands, run, same, steps
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
    from bench.cli.main import cli

    for arguments in commands(page):
        command: click.Command | None = cli
        rest = list(arguments)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.get_command(click.Context(cli), rest.pop(0))
        assert command is not None, arguments
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option for parameter in command.params for option in parameter.secondary_opts}
        options = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert options <= known | {"--help", "--version"}, arguments


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS, ids=name)
def test_sessions_print_what_they_show(page: Path, tmp_path: Path) -> None:
    for step in steps(page.read_text("utf-8")):
        if isinstance(step, Typed):
            done = run(step, tmp_path)
            assert done.returncode == 0, f"$ {step.command}\n{done.stdout}{done.stderr}"
            assert same(step.printed, done.stdout), f"$ {step.command}\n{done.stdout}"
        else:
            (tmp_path / step.name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / step.name).write_text(step.text, "utf-8")
