"""When the pictures of a run are drawn: last, and again if some are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.command import bench

from bench.cli import run
from bench.cli.output import say


def test_pictures_are_drawn_after_the_result_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(folder: Path, manifest: Any) -> None:
        say("drawn")

    monkeypatch.setattr(run, "draw_pictures", draw)
    done = bench("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    assert done.code == 0, done.err
    assert 0 < done.out.index("accuracy") < done.out.index("drawn")
    assert done.out.strip().endswith("drawn")


def test_the_last_lines_say_where_the_pictures_are(tmp_path: Path) -> None:
    done = bench("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    pictures = sorted(tmp_path.glob("*/*.png"))
    assert len(pictures) == 2
    assert done.out.splitlines()[-2:] == [f"Picture: {picture}" for picture in pictures]


@pytest.mark.long
def test_a_complete_run_gets_pictures_that_are_missing(tmp_path: Path) -> None:
    arguments = ("run", "digits", "--backbone", "majority", "--limit", 12, "--results", tmp_path)
    assert bench(*arguments, "--json").code == 0
    assert not list(tmp_path.rglob("*.png"))  # JSON has no pictures
    bench(*arguments)
    confusion, examples = sorted(tmp_path.glob("*/*.png"))
    examples.unlink()  # as if the command was interrupted after the first picture
    again = bench(*arguments)
    assert f"Picture: {examples}" in again.out and examples.is_file()
    changed = confusion.stat().st_mtime_ns
    bench(*arguments)
    assert confusion.stat().st_mtime_ns == changed  # nothing is missing, nothing is drawn
