"""A study: a grid of ordinary runs, made once, resumed, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command import bench

from bench.contracts.hooks import hookimpl
from bench.discovery.loading import load_plugins
from bench.interrupts import Interrupt
from bench.store.studies import read_study, study_folder

GRID = """
datasets = ["digits"]
backbones = ["random", "majority"]
seeds = [0, 1]
limit = 40
pilot = 10

[[exclude]]
backbone = "majority"
seed = 1
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(GRID)
    return file


def test_a_study_makes_its_runs_once(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    first = bench("study", study, *results, "--json")
    assert first.code == 0, first.err
    assert first.err.count("\npilot ") + first.err.startswith("pilot ") == 3
    report = first.json
    assert (report["cells"], report["done"]) == (3, 3)  # one of four is excluded
    assert {row["n"] for row in report["rows"]} == {40}
    assert report["looks"] == {"digits/test": 3}
    moved = next(note for note in report["notes"] if note.startswith("digits/test: another seed"))
    assert "moves accuracy by" in moved and "; other images by" in moved
    assert any("looked at 3 times" in note for note in report["notes"])
    by = {method["method"]: method for method in report["methods"]}
    assert by["random"]["runs"] == 2 and by["random"]["spread"]["of_seeds"] is not None
    one = report["rows"][0]
    alone = bench("run", "digits", "--backbone", "random", "--limit", 40, *results, "--json").json
    assert alone["run_id"] == one["run_id"] and alone["resumed"] == "complete"
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").glob("*/summary.json")}
    again = bench("study", study, *results, "--json")
    assert again.err.count("stored already") == 3 and again.json["rows"] == report["rows"]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_another_limit_is_of_the_same_runs(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    first = bench("study", study, *results, "--json").json
    study.write_text(GRID.replace("limit = 40", "limit = 20"))
    second = bench("study", study, *results, "--json")
    assert second.err.count("stored already") == len(first["rows"]) == 3
    assert [r["run_id"] for r in second.json["rows"]] == [r["run_id"] for r in first["rows"]]
    assert {row["n"] for row in second.json["rows"]} == {20}


def test_a_dry_run_says_what_is_there(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs"], plan["runs_there"], plan["images_to_score"]) == (3, 0, 120)
    assert not (tmp_path / "r").exists()
    bench("run", "digits", "--backbone", "majority", "--limit", 40, *results)
    plan = bench("study", study, *results, "--dry-run", "--json").json
    assert (plan["runs_there"], plan["images_to_score"]) == (1, 80)


class Stops:
    """Presses Ctrl-C when the second whole run begins."""

    @hookimpl
    def run_started(self, total: int, done: int) -> None:
        self.seen = getattr(self, "seen", 0) + (total == 40)
        if self.seen == 2:
            raise Interrupt


def test_a_study_that_is_stopped_resumes(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    manager, stops = load_plugins().manager, Stops()
    manager.register(stops)
    try:
        stopped = bench("study", study, *results)
    finally:
        manager.unregister(stops)
    assert stopped.code == 130 and "the same command resumes" in stopped.err
    state = read_study(study_folder(tmp_path / "r", "small"))
    assert [cell.status for cell in state.cells] == ["complete", "pilot", "pilot"]
    done = bench("study", study, *results, "--json")
    assert done.code == 0 and done.json["done"] == 3 and "\npilot" not in done.err


def test_a_cell_that_fails_leaves_the_others(study: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    grid = f'\n[[grid]]\n\n[[grid]]\nbackbones = [{{name = "tiny-digits", weights = "{absent}"}}]\n'
    study.write_text(GRID + grid)
    done = bench("study", study, "--results", tmp_path / "r", "--json")
    assert done.code == 3 and f"{absent} does not exist" in done.err
    assert (done.json["done"], done.json["failed"]) == (3, 2)
    state = read_study(study_folder(tmp_path / "r", "small"))
    assert [cell.status for cell in state.cells] == ["complete"] * 3 + ["failed"] * 2
    shown = bench("study", study, "--results", tmp_path / "r", "--show", COLUMNS="80")
    assert "Runs that failed" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sedes = [1]", "unknown setting 'sedes'. Did you mean 'seeds'"),
        ('backbones = ["randon"]', "Unknown backbone 'randon'. Did you mean 'random'"),
        ('datasets = ["@nothing"]', "nothing"),
        ("seed = 1\nseeds = [2]", "'seed' is said twice"),
        ("seeds = []", "seeds = [] is empty|seed is an empty list"),
        ('loss = ["l2", "l7"]', "--loss"),
        ('[[exclude]]\nbackbone = "randon"', "backbone has no value 'randon'. Did you mean"),
        ("pilot = -1", "pilot = -1"),
        ("margin = 3", "margin = 3"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_scoring(
    line: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    names = ["datasets", "backbones"]
    usual = [f'{n} = ["{v}"]' for n, v in zip(names, ("digits", "random"), strict=True)]
    file.write_text("\n".join([u for u in usual if not line.startswith(u.split()[0])] + [line]))
    done = bench("study", file, "--results", tmp_path / "r")
    assert done.code == 2 and any(one in done.err for one in said.split("|")), done.err
    assert not (tmp_path / "r").exists()


def test_the_table_in_every_format_and_pivoted(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
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


FORMATS = ("markdown", "latex", "html", "csv", "json")
