"""A study: a grid of ordinary runs, made once, resumed, timed, and shown."""

import json
from pathlib import Path

import pytest
from helpers.command import bench
from helpers.mutations import write_unsealed
from helpers.studies import GRID

from bench.contracts.hooks import hookimpl
from bench.discovery.loading import load_plugins
from bench.interrupts import Interrupt
from bench.running.study.course import Clock, start_study
from bench.running.study.file import read_study_file
from bench.store.formats.documents import StoredConfig
from bench.store.locking import locked
from bench.store.studies import STUDY, read_study, study_folder, write_study


def test_a_study_makes_its_runs_once(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    first = bench("study", study, *results, "--json")
    assert first.code == 0, first.err
    assert first.err.count("\npilot ") + first.err.startswith("pilot ") == 3
    report = first.json
    assert (report["cells"], report["done"]) == (3, 3)  # one of four is excluded
    assert {row["n_samples"] for row in report["rows"]} == {40}
    assert report["looks"] == {"digits/test": 3}
    assert any("3 runs with different settings have finished" in note for note in report["notes"])
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
    assert {row["n_samples"] for row in second.json["rows"]} == {20}


def test_settings_may_be_stored_in_any_order(study: Path, tmp_path: Path) -> None:
    declared = read_study_file(study, {"results": str(tmp_path)})
    state, folder = start_study(declared, tmp_path), study_folder(tmp_path, declared.name)
    folder.mkdir(parents=True)
    turned = [StoredConfig(**dict(reversed(cell.config.plain().items()))) for cell in state.cells]
    cells = [
        cell.model_copy(update={"config": config, "status": "complete"})
        for cell, config in zip(state.cells, turned, strict=True)
    ]
    with locked(folder) as written:
        write_study(written, state.model_copy(update={"cells": cells}))
    assert {cell.status for cell in start_study(declared, tmp_path).cells} == {"complete"}


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


def test_an_edited_state_is_not_believed_and_made_again(study: Path, tmp_path: Path) -> None:
    results = ("--results", tmp_path / "r")
    first = bench("study", study, *results, "--json").json
    file = study_folder(tmp_path / "r", "small") / STUDY.name
    state = json.loads(file.read_text())
    cells = state["cells"]
    cells[0]["run_id"], cells[2]["run_id"] = cells[2]["run_id"], cells[0]["run_id"]
    file.write_text(json.dumps(state))
    shown = bench("study", "small", "--show", *results)
    assert shown.refuses(STUDY.name)
    again = bench("study", study, *results, "--json")
    assert again.code == 0 and again.json["rows"] == first["rows"]
    assert "Left out: " in again.err and again.err.count("stored already") == 6  # pilots too

    write_unsealed(file, state)  # as an earlier version would have written it
    left = bench("study", "small", "--show", *results, "--json")
    assert left.code == 0 and left.err.count("its backbone differs") == 2
    accuracies = [row["accuracy"] for row in left.json["rows"]]
    assert accuracies == [None, first["rows"][1]["accuracy"], None]


def test_a_cell_that_fails_leaves_the_others(study: Path, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    backbone = f'{{name = "tiny-digits", weights = "{absent}"}}'
    study.write_text(f"{GRID}\n[[grid]]\nseeds = [0, 1]\nbackbones = [{backbone}]\n")
    done = bench("study", study, "--results", tmp_path / "r", "--json")
    assert done.refuses(absent, code=3)
    assert (done.json["done"], done.json["failed"]) == (3, 2)
    state = read_study(study_folder(tmp_path / "r", "small"))
    assert [cell.status for cell in state.cells] == ["complete"] * 3 + ["failed"] * 2
    shown = bench("study", study, "--results", tmp_path / "r", "--show", COLUMNS="80")
    assert shown.code == 0 and "Runs that failed" in shown.out
    table, _, _ = shown.out.partition("\nStudy file:")  # as long as the folder's name
    assert max(map(len, table.splitlines())) <= 80


def test_what_is_left_is_what_cells_took_so_far() -> None:
    clock = Clock()
    assert clock.left([(1, 40)]) is None
    clock.note(0, 10.0, 8.0, 40, 0)
    assert clock.left([(1, 40), (2, 20)]) == pytest.approx(2 * 2.0 + 0.2 * 60)
    clock.note(1, 4.0, 2.0, 10, 30)  # a pilot of another speed
    assert clock.left([(1, 999)]) == pytest.approx(2.0 + 0.2 * 30)
