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
PARTS = {"scipy.optimize", "scipy.stats"}  # of scipy, which diffusers imports
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
    names = sorted(names | {PARTS} & sys.modules.keys())
    print("\\n{MARK}" + json.dumps([code, names]), file=sys.stderr, flush=True)
"""
BARE = {"click", "pluggy", "typing_extensions"}  # all of them small
DOCUMENTS = BARE | {"numpy", "pydantic", "pydantic_core", "rich"}
DOCUMENTS |= {"annotated_types", "typing_inspection"}  # pydantic's own
QUESTION = DOCUMENTS | {"PIL", "filelock"}  # for what precedes a run
RECORDS = {"pyarrow", "cloudpickle"}
COMPLETE = QUESTION | RECORDS
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
def test_what_scores_nothing_loads_no_model_and_no_data(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = ("--results", str(tmp_path / "results"))
    scored = ("run", "digits", "--strategy", "full", "--set", "draws=2", "--limit", 4, *results)
    first, second = (bench(*scored, "--seed", n, "--json").json["run_id"] for n in (0, 1))
    prompts_of_folder = ("prompts", str(image_folder))
    needed: dict[tuple[object, ...], set[str]] = {
        prompts_of_folder: QUESTION,
        ("prompts", "digits"): QUESTION,
        ("run", "digits", "--strategy", "nosuch"): QUESTION,
        ("run", "digits", "--split", "nosuch"): QUESTION,
        ("run", "digits", "--until", "better than nosuch", *results): QUESTION,
        ("run", "digits", "--candidates-from", "nosuch", "--top", 2, *results): QUESTION,
        ("run", "digits", "--limit", 3, "--dry-run", *results): QUESTION,
        (*scored, "--json"): COMPLETE,
        (*scored, "--dry-run"): COMPLETE,
        ("leaderboard", *results): READING,
        ("show", first, *results): READING,
        ("compare", first, second, *results): READING,
    }
    monkeypatch.setenv("BENCH_CACHE_DIR", str(tmp_path / "cache"))

    readers = [command for command in needed if needed[command] == READING]
    _, *others = asking = [command for command in needed if command not in readers]
    with ThreadPoolExecutor(2) as pool:
        news = dict(chain(*pool.map(imported_in_turn, [[prompts_of_folder], others, readers])))
        loaded = {arguments for arguments, packages in news.items() if packages & MODELS}
        assert loaded == {prompts_of_folder}, "answers about other texts come with the weights"
        assert not news[prompts_of_folder] & PARTS, "half a second before the first image"
        for arguments, packages in chain(*pool.map(imported_in_turn, [asking, readers])):
            more = {name for name in packages - needed[arguments] if not name.startswith("_")}
            assert not more - {"cython_runtime"}, f"{arguments}: what was read is remembered"


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
