"""Runs of the captions of `helpers.captions`, by the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.command import Finished, bench
from helpers.plugins import install

DRAWS = 24
STORED = """
from bench import hookimpl

@hookimpl
def register_datasets(register):
    register("captions", target="stored_captions:Stored", items=True)

class Stored:
    def load(self, split, data_dir):
        from datasets import load_from_disk
        return load_from_disk({folder!r})
"""


def run(results: Path, strategy: str, *options: object, draws: int = DRAWS) -> Finished:
    """Score the captions; the command must end in one of the ways that runs end."""
    arguments = ["run", "captions", "--backbone", "painter", "--strategy", strategy]
    numbers = ("--set", f"draws={draws}") if strategy != "adaptive" else ()
    arguments += [*numbers, "--results", str(results), "--json", "--batch-size", "16"]
    done = bench(*arguments, *options)
    assert done.code in (0, 2, 3), done.err
    return done


def install_captions(site: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make processes that this one starts find the dataset, as a plugin that reads its rows."""
    rows.save_to_disk(site / "rows")
    install(site, "stored-captions", STORED.format(folder=str(site / "rows")))
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)
    monkeypatch.setenv("BENCH_LOAD_PLUGINS", "stored-captions")
