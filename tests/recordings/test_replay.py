"""A replay or a sweep of replays is a run that says what it is; other recordings are refused."""

import json
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import recorded as recordings
from helpers.command import PATIENCE, bench
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record, replay
from helpers.refusals import refused, warned
from helpers.runs import store

from bench.errors import BenchWarning
from bench.recordings import replay as sweeps
from bench.recordings.learn import calibrate, learn
from bench.recordings.recording import open_recording
from bench.recordings.replay import sweep
from bench.reports.page.page import write_report
from bench.store.folder import MANIFEST, read_manifest, read_records
from bench.store.formats.decisions import read_decisions


def test_a_replay_is_an_ordinary_run_that_says_what_it_is(recording: Path, tmp_path: Path) -> None:
    summary = replay(recording, "race", {"delta": "0.05"}, tmp_path, limit=12)
    assert summary["dataset"]["n_samples"] == 12
    assert summary["replayed_from"] == recording.name
    assert summary["cost"]["seconds"] is None and summary["cost"]["images_per_second"] is None
    assert 0 < summary["cost"]["evaluations_per_image"] < N_CLASSES * N_DRAWS / 4
    manifest = read_manifest(tmp_path / summary["run_id"])
    source = manifest.identity.replayed
    assert source is not None and source.run_id == recording.name
    assert summary["strategy"]["params"]["draws"] == N_DRAWS
    again = replay(recording, "race", {"delta": 0.05}, tmp_path, limit=12)
    assert again == {**summary, "resumed": "complete"}
    more = replay(recording, "race", {"delta": 0.05}, tmp_path)
    assert more["run_id"] == summary["run_id"] and more["dataset"]["n_samples"] == N_IMAGES


def test_what_ended_the_images_is_recorded_counted_and_shown(
    recording: Path, tmp_path: Path
) -> None:
    full = replay(recording, "full", {}, tmp_path)
    assert "decided_by" not in full
    assert not any("decided_by" in r for r in read_records(tmp_path / full["run_id"]).values())
    ceiling = {"ceiling": "published", "delta": 1e-12}
    for params, ended in ((ceiling, "ceiling"), ({}, "bound")):
        summary = replay(recording, "race", params, tmp_path)
        assert summary["strategy"]["params"].get("ceiling") == params.get("ceiling")
        records = read_records(tmp_path / summary["run_id"]).values()
        ends = [record["decided_by"] for record in records]
        assert summary["decided_by"] == {ended: N_IMAGES} and set(ends) == {ended}
        shown = bench(
            "show", tmp_path / summary["run_id"], "--statistics", "--results", tmp_path
        ).out
        cut = ends.count("ceiling")
        assert f"by the ceiling: {cut}" in " ".join(shown.split())
        assert ("nothing is promised" in " ".join(shown.split())) == (ended == "ceiling")


def test_a_race_that_was_dearer_than_the_schedule_says_so(recording: Path, tmp_path: Path) -> None:
    schedule = replay(recording, "adaptive", {}, tmp_path)["cost"]["evaluations_per_image"]
    with warned("adaptive", f"({schedule:,.0f})") as said:
        dear = replay(recording, "race", {"first": 99}, tmp_path)
    assert f"race took {dear['cost']['evaluations_per_image']:,.0f} " in str(said[0].message)
    assert "ceiling=published first=2 delta=0.001" in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error", BenchWarning)
        replay(recording, "race", {"first": 99, "ceiling": "published"}, tmp_path)


def test_a_race_with_a_backbone_that_nothing_was_recorded_with_says_so(tmp_path: Path) -> None:
    path = record(tmp_path)
    with warned("ceiling=published first=2 delta=0.001"):
        replay(path, "race", {}, tmp_path)
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    identity = manifest["identity"]
    identity["backbone"]["name"], identity["dataset"]["name"] = "tiny-digits", "digits"
    with warnings.catch_warnings():
        warnings.simplefilter("error", BenchWarning)
        replay(path, "race", {"ceiling": "published"}, tmp_path)
        replay(path, "adaptive", {}, tmp_path)
        (path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
        replay(path, "race", {"delta": 0.1}, tmp_path)  # its own strategy, on its own data
    identity["dataset"]["name"] = "ucmerced"
    (path / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    with warned("tiny-digits"):
        replay(path, "race", {"delta": 0.1}, tmp_path)


def test_a_run_of_an_earlier_version_is_shown_and_not_resumed(
    recording: Path, tmp_path: Path
) -> None:
    summary = replay(recording, "race", {"delta": 0.05}, tmp_path)
    folder = tmp_path / summary["run_id"]
    for name in (MANIFEST, "summary.json"):
        text = (folder / name).read_text("utf-8")
        (folder / name).write_text(text.replace('"bound": "t"', '"bound": "serfling"'), "utf-8")
    shown = bench("show", folder, "--results", tmp_path)
    assert shown.code == 0 and "bound=serfling" in shown.out
    done = bench("replay", recording, "--strategy", "race", "--set", "bound=serfling")
    assert done.refuses("bound", "serfling")
    assert len(done.err.strip().splitlines()) == 1


def test_the_command_prints_one_object_and_the_board_marks_it(
    recording: Path, tmp_path: Path
) -> None:
    uniform = ("--strategy", "uniform", "--set", "samples=8")
    done = bench("replay", recording, *uniform, "--results", tmp_path, "--json")
    assert done.code == 0, done.err
    assert done.json["cost"]["evaluations_per_image"] == 8 * N_CLASSES
    assert set(done.json) >= {"run_id", "results_dir", "status", "dataset", "metrics", "cost"}
    board = bench("leaderboard", "--results", tmp_path, "--json").json
    assert [(row["kind"], row["rank"]) for row in board] == [("replayed", None)]
    shown = bench("show", done.json["run_id"], "--results", tmp_path)
    assert f"replayed from: {recording.name}" in " ".join(shown.out.split())


def test_a_replay_whose_strategy_fails_ends_with_3(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.contracts.strategy.ErrorTable.outcome", lambda self: None)
    done = bench("replay", recording, "--strategy", "full", "--results", tmp_path, "--json")
    assert done.code == 3 and done.json["failed_samples"] == done.json["dataset"]["n_samples"]


@pytest.mark.long
def test_replay_imports_no_torch(recording: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bench.recordings.replay import prepare_replay;"
        "from bench.running.execute import execute;"
        f"execute(prepare_replay(Path({str(recording)!r}), 'race', {{}}, Path({str(tmp_path)!r})));"
        "assert not {'torch', 'diffusers', 'transformers', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("strategy", "params", "message"),
    [
        ("uniform", {"draws": 50}, "100 draws"),
        ("adaptive", {"samples": "5,500"}, "draws=100"),
        ("rase", {}, "'race'"),
        ("race", {"dleta": 1}, "'delta'"),
    ],
)
def test_what_does_not_fit_is_refused(
    recording: Path, tmp_path: Path, strategy: str, params: dict[str, Any], message: str
) -> None:
    with refused(message):
        replay(recording, strategy, params, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_margins_on_antithetic_draws_are_known_where_pairs_were_averaged(
    tmp_path: Path,
) -> None:
    """Versions before took the draws of a pair for neighbours; what was recorded tells."""
    settings = ("--strategy", "full", "--set", "draws=8", "--plan", "antithetic", "--limit", "4")
    made = bench("run", "digits", *settings, "--save-errors", "--results", tmp_path, "--json").json
    run = tmp_path / made["run_id"]
    manifest = read_manifest(run)
    decided = read_decisions(run, manifest)
    problem = open_recording(run).problem
    assert problem.antithetic and manifest.pairs_averaged
    errors = open_recording(run).errors(decided.sample_ids[0].as_py()).astype(np.float64)
    best, second = errors.mean(axis=1).argsort()[:2]
    values = (errors[second] - errors[best]).reshape(-1, 2).mean(axis=1)
    wanted = np.sqrt((np.diff(values) ** 2).sum() / (2 * (len(values) - 1)) / len(values))
    assert decided.margin_stderr[0] == pytest.approx(wanted, rel=1e-4)

    plain = manifest.plain()
    del plain["pairs_averaged"]
    (run / "manifest.json").write_text(json.dumps(plain))
    old = read_decisions(run, read_manifest(run))
    assert np.isnan(old.margin_stderr).all() and np.isnan(old.confidence).all()
    assert (old.margins == decided.margins).all()
    summary = replay(run, "full", {}, tmp_path / "replayed")
    path = tmp_path / "replayed" / summary["run_id"]
    again = read_decisions(path, read_manifest(path))
    assert again.margin_stderr == pytest.approx(decided.margin_stderr)
    more = (*settings[:-1], "6", "--save-errors", "--results", tmp_path)
    bench("run", "digits", *more)  # resumes: the lines of before are among its own
    assert not read_manifest(run).margin_errors_known


def test_a_run_without_its_errors_is_refused(recording: Path, tmp_path: Path) -> None:
    without = replay(recording, "race", {}, tmp_path)
    with refused("--strategy full --save-errors"):
        open_recording(tmp_path / without["run_id"])


def test_a_recording_with_missing_cells_is_refused(tmp_path: Path) -> None:
    with refused("cell"):
        open_recording(record(tmp_path, skip=(0,)))


def test_of_one_draw_there_is_nothing_to_try_or_to_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helpers.recorded.N_DRAWS", 1)
    path = record(tmp_path)
    for work in (sweep, partial(learn, what=["deviation"])):
        with refused("one draw"):
            work(path)
    assert calibrate(path).settings == []
    assert "one draw per image" in " ".join(bench("learn", path).out.split())
    assert bench("sweep", path).code == 2
    write_report([path], tmp_path / "one.html")


def test_of_a_likelihood_no_screen_is_learned(tmp_path: Path) -> None:
    """The advice would be a recording that a likelihood refuses."""
    path = store(tmp_path, [0, 1], [0, 1], scoring={"noise": "seed 0", "reduction": "mean"})
    with refused("gradients"):
        learn(path, ["reach"])


@pytest.mark.long
def test_sweep(recording: Path, tmp_path: Path) -> None:
    given = tmp_path / replay(recording, "uniform", {"samples": 3}, tmp_path)["run_id"]
    words = ("sweep", recording, "--points", given)
    done = bench(*words, "--plot", tmp_path / "front.png", "--json")
    assert done.code == 0, done.err
    *rows, point = done.json
    assert point["point"] and point["run_id"] == given.name
    assert 0.5 < point["agreement"] <= 1 and not point["pareto"]
    assert (tmp_path / "front.png").stat().st_size > 10_000
    by_name = {row["strategy"]["name"]: row for row in rows}
    assert by_name["full"]["agreement"] == 1.0
    assert set(by_name) >= {"adaptive", "uniform", "halving", "paired-ttest", "race"}
    for row in rows:
        low, high = row["agreement_ci95"]
        assert 0 <= low <= row["agreement"] <= high <= 1
        assert row["run_id"] is None and row["metrics"]["accuracy"] <= 1
    costs = [(row["cost"]["evaluation_equivalents_per_image"], -row["agreement"]) for row in rows]
    for row, (cost, missed) in zip(rows, costs, strict=True):
        beaten = any(c <= cost and m <= missed and (c, m) != (cost, missed) for c, m in costs)
        assert row["pareto"] is not beaten
    assert not any(row.get("recommended") for row in done.json)  # 30 images are too few
    some = ("--strategies", "race,full", "--limit", 10, "--set", "deviation=0.05")
    table = bench(*words, *some)
    assert "delta=0.001 first=1 deviation=0.05" in table.out.replace("\n", " ")
    assert "Nothing is recommended" in table.out and "uniform samples=3" in table.out
    assert "race delta=0.05" in table.out and "halving" not in table.out
    unused = bench("sweep", recording, "--set", "reach=3")
    assert unused.refuses("--set reach=3")


@pytest.mark.long
def test_the_cheapest_that_is_shown_to_agree_is_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "N_IMAGES", 80)  # 73 without a disagreement are enough
    path = record(tmp_path)
    rows = sweeps.sweep(path)
    (best,) = [row for row in rows if row.recommended]
    for row in rows:
        assert row.cost >= best.cost or row.agreement_ci95[0] < 0.95
    assert best.agreement_ci95[0] >= 0.95 and best.cost < 0.5 * N_CLASSES * N_DRAWS
    some = f"full,{best.summary.strategy.name}"
    out = bench("sweep", path, "--strategies", some).out.replace("\n", " ")
    assert f"Recommended: {best.summary.strategy.name}" in out


def test_a_point_wants_the_same_images(recording: Path, tmp_path: Path) -> None:
    few = tmp_path / replay(recording, "full", {}, tmp_path, limit=5)["run_id"]
    with refused("25 of", "30 images"):
        sweeps.sweep(recording, [("full", {})], points=[few])
    assert len(sweeps.sweep(recording, [("full", {})], limit=5, points=[few])) == 2


def test_what_is_asked_wrongly_is_refused_before_the_sweep(recording: Path, tmp_path: Path) -> None:
    for option, given, said in (
        ("--plot", tmp_path / "p.xyz", "p.xyz"),
        ("--plot", tmp_path, "--plot"),
        ("--plot", tmp_path / "no" / "p.png", tmp_path / "no"),
        ("--strategies", "", "--strategies"),
    ):
        done = bench("sweep", recording, option, given)
        assert done.refuses(said) and not done.out
    assert not list(tmp_path.iterdir())


def test_a_classifier_costs_one_evaluation(recording: Path, tmp_path: Path) -> None:
    ids = [f"image-{i}" for i in range(N_IMAGES)]
    given: dict[str, Any] = {
        "dataset": "toy",
        "backbone": "clip",
        "n_classes": N_CLASSES,
        "sample_ids": ids,
    }
    one = store(tmp_path, [0] * N_IMAGES, [1] * N_IMAGES, {"evaluations": N_CLASSES}, **given)
    full, point = sweeps.sweep(recording, [("full", {})], points=[one])
    assert not full.classifier and full.cost == N_CLASSES * N_DRAWS
    assert point.classifier and point.cost == 1
