"""The picture of the terminal that README, the first page of the site, shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
from helpers.blocks import unknown
from helpers.pages import hook
from helpers.places import ROOT


@pytest.fixture(scope="module")
def terminal() -> ModuleType:
    return hook("terminal")


def test_a_picture_holds_what_was_printed(terminal: ModuleType) -> None:
    text = "\x1b[1mA run\x1b[0m <b> & done\n\n  accuracy   0.9000  (95 % interval)"
    picture = terminal.draw(text)
    assert terminal.shown(picture) == f"$ {terminal.COMMAND}\nA run <b> & done\n\n  " + (
        "accuracy   0.9000  (95 % interval)"
    )


def test_the_picture_is_shown_and_asks_nobody_for_anything(terminal: ModuleType) -> None:
    picture = terminal.PICTURE.read_text("utf-8")
    assert not re.search(r"url\(\W*http|<image|<script|href=", picture)
    assert "terminal.svg)" in (ROOT / "README.md").read_text("utf-8")


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
