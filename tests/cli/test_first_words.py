"""What a person reads first: short, in groups, within the terminal, and with a next step."""

from __future__ import annotations

from importlib import import_module

import pytest
from click import Command
from click.shell_completion import ShellComplete
from helpers.command import bench
from helpers.places import ROOT

from bench.cli.main import cli
from bench.discovery.commands import GROUPS, own_commands


def test_bench_alone_says_what_it_is() -> None:
    alone = bench()
    assert alone.code == 0 and alone.out == bench("--help").out


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
