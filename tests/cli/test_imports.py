"""Commands are quick: they import what the words on the screen need, and no more."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from helpers.command import bench, imported_by, python

COMMAND = "from bench.cli.main import main; main()"
HELP_OF_ALL = """
import click
from bench.cli.main import cli
context = click.Context(cli)
for name in cli.list_commands(context):
    cli.get_command(context, name).get_help(context)
"""
MARK = "imported: "
IN_TURN = f"""
import json, sys
before = set(sys.modules)
from bench.__main__ import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bench", *arguments]
    try:
        code = main()
    except SystemExit as stopped:
        code = stopped.code
    names = {{name.partition(".")[0] for name in set(sys.modules) - before}}
    names = names - sys.stdlib_module_names - {{"bench", "bench_plugins"}}
    names = sorted(names)
    print("\\n{MARK}" + json.dumps([code, names]), file=sys.stderr, flush=True)
"""
BARE = {"click", "pluggy", "typing_extensions"}  # all of them small
DOCUMENTS = BARE | {"numpy", "pydantic", "pydantic_core", "rich"}
DOCUMENTS |= {"annotated_types", "typing_inspection"}  # pydantic's own
QUESTION = DOCUMENTS | {"PIL", "filelock"}  # for what precedes a run
RECORDS = {"pyarrow", "cloudpickle"}
READING = DOCUMENTS | RECORDS | {"markupsafe"}
MODELS = {"torch", "diffusers", "transformers"}
HEAVY = {*MODELS, "datasets", "pandas", "matplotlib", "sklearn", "pyarrow", "scipy"}


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


@pytest.mark.long
def test_what_scores_nothing_loads_no_more_than_it_must(tmp_path: Path, image_folder: Path) -> None:
    results = ("--results", str(tmp_path / "results"))
    scored = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 4, *results)
    first, second = (bench(*scored, "--seed", n, "--json").json["run_id"] for n in (0, 1))
    needed: dict[tuple[object, ...], set[str]] = {
        ("run", "digits", "--strategy", "nosuch"): QUESTION,
        ("run", "digits", "--split", "nosuch"): QUESTION,
        ("run", "digits", "--until", "better than nosuch", *results): QUESTION,
        ("run", "digits", "--candidates-from", "nosuch", "--top", 2, *results): QUESTION,
        ("leaderboard", *results): READING,
        ("show", first, *results): READING,
        ("compare", first, second, *results): READING,
    }
    refused = [command for command in needed if needed[command] == QUESTION]
    shown = [command for command in needed if needed[command] == READING]
    with ThreadPoolExecutor(2) as pool:
        for arguments, packages in chain(*pool.map(imported_in_turn, [refused, shown])):
            more = {name for name in packages - needed[arguments] if not name.startswith("_")}
            assert not more - {"cython_runtime"}, arguments
    ((_, packages),) = imported_in_turn([("prompts", str(image_folder), "--backbone", "random")])
    assert not packages & MODELS, "the classes of a folder are read without any model"


def imported_in_turn(
    commands: list[tuple[object, ...]],
) -> list[tuple[tuple[object, ...], set[str]]]:
    """Run commands in one process; return which packages are there at the end of each.

    They are those of others. What one imports, the next ones have: a command that imports too much
    shows in all that follow.
    """
    done = python(IN_TURN, json.dumps([[str(word) for word in command] for command in commands]))
    ends = [
        json.loads(line[len(MARK) :]) for line in done.err.splitlines() if line.startswith(MARK)
    ]
    assert done.err.splitlines()[-1].startswith(MARK), "a library says something at exit"
    for command, (code, _) in zip(commands, ends, strict=True):
        expected = 2 if {"nosuch", "better than nosuch"} & set(command) else 0
        assert code == expected, (command, done.err)
    return [(command, {*names}) for command, (_, names) in zip(commands, ends, strict=True)]
