"""First-order errors are stored, replayed and learned from."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command import bench
from helpers.recorded import replay
from helpers.refusals import refused
from helpers.sketch import Sketch
from numpy.typing import NDArray

import bench as toolkit
from bench.recordings.recording import open_draws, open_recording
from bench.reports.leaderboard.board import row_labels
from bench.reports.leaderboard.ranking import leaderboard
from bench.store.folder import read_manifest, read_records
from bench.store.runs import read_run
from bench_plugins.strategies.screen_race import ImageScreens, ScreenRace, winner_reach

PRICE = Sketch.linearisation_cost(None)  # of a linearised draw, counted


def record(limit: int, results: Path) -> Any:
    settings: dict[str, Any] = {"strategy": "full-linearised", "params": {"draws": 16}}
    return toolkit.run("digits", limit=limit, save_errors=True, results=results, **settings)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    summary = record(10, tmp_path_factory.mktemp("recorded"))
    cost = summary["cost"]
    assert cost["linearisations"] == 160 and cost["evaluations_per_image"] == 160
    assert cost["linearisation_cost"] == PRICE
    assert cost["evaluation_equivalents_per_image"] == pytest.approx(160 + 16 * PRICE, abs=0.01)
    return Path(summary["results_dir"])


def test_a_risk_chooses_how_far_a_screen_reaches(recorded: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(recorded, results / recorded.name)
    made = bench(
        *("learn", recorded.name, "calibration", "--strategy", "screen-race", "--results", results)
    )
    assert made.code == 0, made.err
    screen = ("--strategy", "screen-race", "--set", "draws=16", "--results", results)
    asked = ("run", "digits", "--split", "train", "--limit", 4, *screen)
    done = bench(*asked, "--risk", 0.3, "--json")
    assert done.code == 0, done.err
    params = done.json["strategy"]["params"]
    assert f"reach={params['reach']:g}" in made.out and params["first"] == 2
    ended = bench(*asked, "--risk", 0.3, "--set", "reach=2")
    assert ended.refuses("delta and first and reach")


def test_a_replay_decides_and_costs_what_the_live_run_does(recorded: Path, tmp_path: Path) -> None:
    params = {"draws": 16, "samples": 4}
    live = toolkit.run(
        "digits", strategy="screen-race", params=params, limit=10, results=str(tmp_path)
    )
    replayed = replay(recorded, "screen-race", {"samples": 4}, tmp_path)
    a, b = (read_records(Path(run["results_dir"])) for run in (live, replayed))
    for sample_id, record in a.items():
        other = b[sample_id]
        assert other["prediction"] == record["prediction"]
        assert other["evaluations"] == record["evaluations"]
        assert other["linearisations"] == record["linearisations"] == 4
        assert other["equivalents"] == record["equivalents"]
    cost = replayed["cost"]
    assert cost["linearisation_cost"] == live["cost"]["linearisation_cost"] == PRICE
    assert cost["evaluation_equivalents"] == pytest.approx(
        cost["evaluations"] + 40 * PRICE, abs=0.1
    )


def test_costs_that_were_timed_stay_marked(recorded: Path, tmp_path: Path) -> None:
    """A run of an earlier version: replayed and resumed, its cost is still one of its machine."""
    old = tmp_path / recorded.name
    shutil.copytree(recorded, old)
    manifest = read_manifest(old).plain()
    del manifest["linearisation_cost"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    lines = [json.loads(line) for line in (old / "samples.jsonl").read_text().splitlines()]
    timed = [{**line, "equivalents": 160 + 16 * 3.5} for line in lines]
    (old / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in timed))
    (old / "summary.json").unlink()
    assert open_recording(old).problem.linearisation_cost == pytest.approx(3.5)
    replayed = replay(old, "screen-race", {"samples": 4}, tmp_path / "replayed")
    resumed = record(11, tmp_path)
    assert resumed["dataset"]["n_samples"] == 11
    for summary in (replayed, resumed):
        found = read_run(Path(summary["results_dir"])).summary
        assert found is not None and found.cost.timed
    rows = leaderboard([tmp_path])
    assert len(rows) == 2 and all("timed" in row_labels(row) for row in rows)


def test_what_cannot_be_linearised_is_refused_before_the_work(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sketch, "can_linearise", False)
    with refused("'tiny-digits'"):
        toolkit.run("digits", strategy="screen-race", results=str(tmp_path))
    full = ("--strategy", "full", "--set", "draws=2", "--save-errors")
    plain = bench("run", "digits", *full, "--limit", 1, "--results", tmp_path, "--json").json
    with refused("full-linearised --set draws=2 --save-errors"):
        replay(Path(plain["results_dir"]), "screen-race", {"samples": 2}, tmp_path)


def screens_of(path: Path, weights: NDArray[np.float64]) -> list[ImageScreens]:
    """Return the screens of each image, with other weights of the draws."""
    recording = open_draws(path)
    problem, found = replace(recording.problem, weights=weights), []
    for sample in recording.samples():
        tables = recording.tables(sample.sample_id)
        errors, first = (np.asarray(table, float) for table in (tables.errors, tables.at_mean))
        found.append(ScreenRace(draws=16).statistics(problem, errors, first))
    return found


def test_scores_of_screens_are_weighted(recorded: Path) -> None:
    """The last draw has almost all the weight, so it decides the winner and the ranking."""
    screens = screens_of(recorded, np.where(np.arange(16) == 15, 1.0, 1e-6))
    recording = open_draws(recorded)
    for sample, screen in zip(recording.samples(), screens, strict=True):
        tables = recording.tables(sample.sample_id)
        ((_, first_order),) = tables.first_order
        assert screen.winner == tables.errors[:, 15].argmin()
        ranking = first_order[:, 15].argsort()
        assert (screen.distances[16].argsort() == ranking).all()


def test_a_reach_keeps_the_winners_that_its_risk_says(recorded: Path) -> None:
    screens = screens_of(recorded, np.ones(16))
    assert list(screens[0].distances) == [2, 4, 8, 16]
    for samples in screens[0].distances:
        reach = winner_reach(screens, samples, 0.1)
        far = [screen.distances[samples][screen.winner] for screen in screens]
        assert reach == max(far)  # of ten images, that a new one is farther has probability 1 / 11
        assert winner_reach(screens, samples, 0.05) == np.inf  # that takes 19 images
    learned = ScreenRace(draws=16).learn(screens)
    assert list(learned) == ["risk 0.1"]
    cheapest = learned["risk 0.1"]
    assert cheapest["reach"] >= winner_reach(screens, cheapest["samples"], 0.1)  # rounded up


def test_a_reach_is_learned_and_swept(recorded: Path) -> None:
    done = bench("learn", recorded, "reach", "--json")
    assert done.code == 0 and done.json["strategy"] == "screen-race", done.err
    (screen,) = done.json["settings"]["settings"]
    assert screen["name"] == "risk 0.1" and set(screen["params"]) == {"samples", "reach"}
    assert done.json["settings"]["recommended"] is None  # ten images are too few
    assert "samples=" in bench("learn", recorded, "reach").out
    rows = bench("sweep", recorded, "--json").json
    assert {"screen-race", "race"} <= {row["strategy"]["name"] for row in rows}
