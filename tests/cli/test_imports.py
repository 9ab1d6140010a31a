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
from bench.cli.main import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bench", *arguments]
    try:
        code = main()
    except SystemExit as stopped:
        code = stopped.code
    names = sorted({{name.partition(".")[0] for name in sys.modules}})
    print("\\n{MARK}" + json.dumps([code, names]), file=sys.stderr, flush=True)
"""
BARE = {"click", "pluggy", "typing_extensions"}  # all of them small
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


@pytest.mark.long
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

    strict, readers = (
        [c for c in refused if refused[c] == packages and c != prompts_of_folder]
        for packages in (set(), SCORING)
    )
    with ThreadPoolExecutor(2) as pool:
        news = dict(chain(*pool.map(imported_in_turn, [[prompts_of_folder], strict, readers])))
        loaded = {arguments for arguments, packages in news.items() if packages & MODELS}
        assert loaded == {prompts_of_folder}, "answers about other texts come with the weights"
        again = chain(*pool.map(imported_in_turn, [[prompts_of_folder, *strict], readers]))
        for arguments, packages in again:
            seen = packages & (SLOW | {"scipy"} | refused[arguments])
            assert not seen, f"{arguments}: what was read is remembered"


def imported_in_turn(
    commands: list[tuple[object, ...]],
) -> list[tuple[tuple[object, ...], set[str]]]:
    """Run commands in one process; return which packages are there at the end of each.

    What one imports, the next ones have: a command that imports too much shows in all that follow.
    """
    done = python(IN_TURN, json.dumps([[str(word) for word in command] for command in commands]))
    ends = [
        json.loads(line[len(MARK) :]) for line in done.err.splitlines() if line.startswith(MARK)
    ]
    for command, (code, _) in zip(commands, ends, strict=True):
        expected = 2 if {"nosuch", "better than nosuch"} & set(command) else 0
        assert code == expected, (command, done.err)
    return [(command, {*names}) for command, (_, names) in zip(commands, ends, strict=True)]
