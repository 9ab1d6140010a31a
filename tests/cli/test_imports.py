"""Help and listings are quick: they import what the words on the screen need, and no more."""

from __future__ import annotations

import pytest
from helpers.command import imported_by

COMMAND = "from bench.cli.main import main; main()"
HELP_OF_ALL = """
import click
from bench.cli.main import cli
context = click.Context(cli)
for name in cli.list_commands(context):
    cli.get_command(context, name).get_help(context)
"""
BARE = {"click", "pluggy"}
HEAVY = {"torch", "diffusers", "transformers", "datasets", "pandas", "pyarrow", "sklearn", "scipy"}


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], BARE),
        (["list", "datasets"], BARE | {"rich"}),
        (["list", "backbones", "--json"], BARE),
        (["list", "strategies"], BARE | {"rich"}),
        (["plugins"], BARE | {"rich"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_listings_import_what_they_show(arguments: list[str], needed: set[str]) -> None:
    assert imported_by(COMMAND, *arguments) <= needed


def test_help_of_every_command_imports_nothing_heavy() -> None:
    assert not imported_by(HELP_OF_ALL) & HEAVY
