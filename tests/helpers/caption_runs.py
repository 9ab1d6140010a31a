"""Runs of the captions of `helpers.captions`, by the command line."""

from __future__ import annotations

from pathlib import Path

from helpers.command import Finished, bench

DRAWS = 24


def run(results: Path, strategy: str, *options: object, draws: int = DRAWS) -> Finished:
    """Score the captions; the command must end in one of the ways that runs end."""
    arguments = ["run", "captions", "--backbone", "painter", "--strategy", strategy]
    numbers = ("--set", f"draws={draws}") if strategy != "adaptive" else ()
    arguments += [*numbers, "--results", str(results), "--json", "--batch-size", "16"]
    done = bench(*arguments, *options)
    assert done.code in (0, 2, 3), done.err
    return done
