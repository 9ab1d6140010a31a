"""Commands are quick: they import what the words on the screen need, and no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.command import bench, imported_by

COMMAND = "from bench.cli.main import main; main()"
HELP_OF_ALL = """
import click
from bench.cli.main import cli
context = click.Context(cli)
for name in cli.list_commands(context):
    cli.get_command(context, name).get_help(context)
"""
BARE = {"click", "pluggy"}
MODELS = {"torch", "diffusers", "transformers"}
SLOW = {*MODELS, "datasets", "pandas", "matplotlib", "sklearn"}
SCORING = {"PIL", "jinja2", "filelock"}  # what reading stored runs does not need
HEAVY = SLOW | {"pyarrow", "scipy"}


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


def test_what_scores_nothing_loads_no_model_and_no_data(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ("--results", str(tmp_path / "results"))
    scored = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 4, *results)
    first, second = (bench(*scored, "--seed", n, "--json").json["run_id"] for n in (0, 1))
    prompts_of_folder = ("prompts", str(image_folder))
    refused: dict[tuple[object, ...], set[str]] = {
        (*scored, "--json"): set(),
        (*scored, "--dry-run"): set(),
        ("run", "digits", "--limit", 3, "--dry-run", *results): set(),
        ("run", "digits", "--strategy", "nosuch"): set(),
        ("run", "digits", "--split", "nosuch"): set(),
        ("run", "digits", "--until", "better than nosuch", *results): set(),
        ("run", "digits", "--candidates-from", "nosuch", "--top", 2, *results): set(),
        ("prompts", "digits"): set(),
        prompts_of_folder: set(),
        ("leaderboard", *results): SCORING,
        ("show", first, *results): SCORING,
        ("compare", first, second, *results): SCORING,
    }
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))

    def imported(arguments: tuple[object, ...]) -> set[str]:
        code = 2 if {"nosuch", "better than nosuch"} & set(arguments) else 0
        packages = imported_by(COMMAND, *arguments, ends_with=code)
        return packages & (SLOW | {"scipy"} | refused[arguments])

    with ThreadPoolExecutor(2) as pool:
        new = dict(zip(refused, pool.map(imported, refused), strict=True))
        loaded = {arguments for arguments, packages in new.items() if packages & MODELS}
        assert loaded == {prompts_of_folder}, "answers about other texts come with the weights"
        again = {arguments for arguments, packages in new.items() if packages}
        assert not set().union(*pool.map(imported, again)), "what was read is remembered"
