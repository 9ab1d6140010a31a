"""Mistyped commands are answered in a line; `bench` alone says what it is and has."""

from importlib import import_module
from pathlib import Path

import pytest
from click import Command
from click.shell_completion import ShellComplete
from helpers.command import bench
from helpers.places import ROOT

from bench.cli.main import cli, warning_printer
from bench.discovery.commands import GROUPS, own_commands
from bench.errors import BenchWarning


def test_mistyped_commands_and_runs_are_suggested(tmp_path: Path) -> None:
    done = bench("lst", "datasets")
    assert done.refuses("'list'")
    done = bench("show", "nothing", "--results", tmp_path)
    assert done.refuses("'nothing'")
    assert bench("leaderboard", "--results", tmp_path / "none").code == 2


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        ("run digits --model sd15", "--backbone"),
        ("run digits -n 3", "--limit"),
        ("run digits --output-dir x", "--results"),
        ("compare a b --output_dir x", "--results"),
        ("list models", "`bench list backbones`"),
        ("eval", "`bench run`"),
    ],
)
def test_words_of_other_programs_are_answered_with_ours(arguments: str, own: str) -> None:
    done = bench(*arguments.split())
    assert done.refuses(own)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    for command in ("runs", "leaderboard", "report"):
        done = bench(command, "--results", "a\0b")
        assert done.code == 2 and "Unexpected" not in done.err
    assert len(bench("show", "x" * 5000, "--results", tmp_path).err) < 400


@pytest.mark.parametrize(
    "arguments",
    [
        "run {}",
        "run ./{}",
        "run digits --backbone {}",
        "run digits --data-dir {}",
        "run digits --backbone random --config {}",
        "run digits --backbone random --prompts {}",
        "study {}.toml",
        "classify {} --classes a,b",
        "leaderboard --results {}",
        "report --out {}",
        "view --results {}",
        "results add {}",
        "results validate --into {}",
        "new dataset {}",
    ],
)
def test_a_name_of_10_000_letters_is_refused_in_one_short_line(arguments: str) -> None:
    done = bench(*arguments.format("x" * 10_000).split())
    assert done.code == 2 and "Unexpected" not in done.err
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("Error: ") and len(last) < 600, last[:900]


def test_a_warning_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    show = warning_printer()
    for text in ("all is red", "all is blue", "all is red"):
        show(BenchWarning(text), BenchWarning, "file.py", 1)
    assert capsys.readouterr().err == "Warning: all is red\nWarning: all is blue\n"


def test_every_command_has_its_place() -> None:
    commands = own_commands().values()
    defined = {
        (module, name)
        for module in (f"bench.cli.{path.stem}" for path in (ROOT / "bench/cli").glob("*.py"))
        for name, value in vars(import_module(module)).items()
        if name.endswith("_command") and isinstance(value, Command)
    }
    assert {(command.module, command.function) for command in commands} == defined
    assert {command.group for command in commands} == set(GROUPS)


@pytest.mark.parametrize("words", ["", "plugins", *(f"{name} --help" for name in own_commands())])
def test_nothing_is_wider_than_the_terminal(words: str) -> None:
    done = bench(*words.split(), COLUMNS="80")
    assert done.code == 0 and max(len(line.rstrip()) for line in done.out.splitlines()) <= 80
    assert "\x1b" not in done.out


def test_names_are_completed() -> None:
    complete = ShellComplete(cli, {}, "bench", "_BENCH_COMPLETE").get_completions
    assert [item.value for item in complete(["run"], "digi")] == ["digits"]
    assert "race" in [item.value for item in complete(["run", "--strategy"], "ra")]
    assert {"report", "results"} <= {item.value for item in complete([], "re")}
