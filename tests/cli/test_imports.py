"""Commands are quick: they import what the words on the screen need, and no more."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from helpers.command import bench, imported_by, python

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
MODELS = {"torch", "diffusers", "transformers"}
COSTLY = {*MODELS, "datasets", "pandas", "matplotlib", "sklearn", "scipy"}
HEAVY = {*COSTLY, "numpy", "pyarrow", "pydantic"}
LISTINGS: list[tuple[object, ...]] = [
    ("--help",),
    *(("list", kind, *words) for kind in ("datasets", "strategies") for words in ((), ("--json",))),
    ("list", "backbones", "--json"),
    ("plugins",),
]


def test_listings_and_help_import_nothing_heavy() -> None:
    for arguments, packages in imported_in_turn(LISTINGS):
        assert not packages & HEAVY, arguments
    assert not imported_by(HELP_OF_ALL) & {*COSTLY, "pyarrow"}


@pytest.mark.long
def test_what_scores_nothing_loads_no_more_than_it_must(tmp_path: Path, image_folder: Path) -> None:
    results = ("--results", str(tmp_path / "results"))
    scored = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 4, *results)
    first, second = (bench(*scored, "--seed", n, "--json").json["run_id"] for n in (0, 1))
    refused: list[tuple[object, ...]] = [
        ("run", "digits", "--strategy", "nosuch"),
        ("run", "digits", "--split", "nosuch"),
        ("run", "digits", "--until", "better than nosuch", *results),
        ("run", "digits", "--candidates-from", "nosuch", "--top", 2, *results),
    ]
    shown: list[tuple[object, ...]] = [
        ("leaderboard", *results),
        ("show", first, *results),
        ("compare", first, second, *results),
    ]
    with ThreadPoolExecutor(2) as pool:
        for arguments, packages in chain(*pool.map(imported_in_turn, [refused, shown])):
            assert not packages & COSTLY, arguments
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
