"""A study's table: in every format, and pivoted."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.command import bench
from helpers.studies import GRID

FORMATS = ("markdown", "latex", "html", "csv", "json")


def test_the_table_in_every_format_and_pivoted(tmp_path: Path) -> None:
    study, results = tmp_path / "small.toml", ("--results", tmp_path / "r")
    study.write_text(GRID)
    bench("study", study, *results, "--pilot")
    shown = {f: bench("study", "small", *results, "--show", "--format", f).out for f in FORMATS}
    assert "| backbone |" in shown["markdown"] and r"\toprule" in shown["latex"]
    assert shown["html"].startswith("<!doctype html>")
    assert shown["csv"].splitlines()[0].startswith("backbone,")
    assert json.loads(shown["json"])["done"] == 0  # pilots alone
    axes = ("--rows", "backbone", "--columns", "seed", "--value", "n", "--format", "csv")
    pivot = bench("study", study, *results, "--show", *axes).out
    assert pivot.splitlines() == ["backbone,0,1", "random,10,10", "majority,10,–"]
    figures = ("--figure", tmp_path / "f.svg", "--ranks-figure", tmp_path / "r.svg")
    drawn = bench("study", study, *results, "--show", *figures)
    assert drawn.code == 2 and "needs 10 datasets" in drawn.err
    assert "digits/test" in (tmp_path / "f.svg").read_text() and not (tmp_path / "r.svg").exists()
    wrong = bench("study", study, *results, "--show", "--rows", "sed", "--columns", "backbone")
    assert wrong.code == 2 and "'seed'" in wrong.err
