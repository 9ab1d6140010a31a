"""Mistyped commands, words of other programs and impossible names are answered in a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.command import bench

from bench.cli.main import warning_printer
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
