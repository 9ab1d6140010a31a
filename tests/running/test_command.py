"""The command that a message shows is one that the command line takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.runs import a_manifest, store

from bench.running.command import recording_command


@pytest.mark.parametrize(
    ("settings", "command"),
    [
        ({}, "bench run digits --backbone tiny-digits --strategy full --save-errors"),
        (
            {"limit": 20, "seed": 3, "results": "elsewhere", "device": "cpu"},
            "bench run digits --backbone tiny-digits --strategy full --save-errors --limit 20"
            " --seed 3",
        ),
        (
            {
                "dataset": "folder",
                "data_dir": "my pictures",
                "backbone": None,
                "template": "a {class}",
            },
            "bench run 'my pictures' --strategy full --save-errors --template 'a {class}'",
        ),
    ],
)
def test_it_names_what_differs_from_the_defaults(settings: dict[str, object], command: str) -> None:
    config = {"dataset": "digits", "backbone": "tiny-digits", **settings}
    assert recording_command(a_manifest(["1"], config=config)) == command


def test_what_learn_screen_and_replay_suggest_is_accepted(tmp_path: Path) -> None:
    config = {"dataset": "digits", "backbone": "tiny-digits", "limit": 8}
    run = store(tmp_path, [0, 1], [0, 1], config=config)
    for asked, strategy in (
        (["replay", run, "--strategy", "race"], "full"),
        (["learn-screen", run], "full-linearised"),
    ):
        done = bench(*asked)
        assert done.code == 2
        _, *command = shlex.split(done.err.rpartition("with: ")[2])
        assert command[command.index("--strategy") + 1] == strategy
        planned = bench(*command, "--results", tmp_path / "new", "--dry-run")
        assert planned.code == 0, planned.err


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    done = bench("show", "nothing", "--results", tmp_path / "my results")
    _, listing, _ = done.err.split("`")
    assert done.code == 2 and bench(*shlex.split(listing)[1:]).code == 0
