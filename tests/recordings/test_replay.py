"""Replay, sweep and learn-order on a recording made up here: no model, no torch."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from helpers.command import bench
from helpers.runs import a_manifest

from bench.contracts.dataset import Sample
from bench.contracts.decision import Decided
from bench.contracts.strategy import ErrorTable, Evaluate, Problem, Reply
from bench.errors import UserError
from bench.inputs.draws import timestep_grid
from bench.recordings import sweep as sweeps
from bench.recordings.learn_order import learn_order
from bench.recordings.recording import open_recording
from bench.recordings.replay import replay
from bench.stats.calibration import (
    calibration_error,
    confidence_error,
    effort_error,
    softmax_error,
)
from bench.stats.metrics import summarize
from bench.store.folder import RunFolder, read_manifest, read_records
from bench.store.records import make_record

N_DRAWS, N_CLASSES, N_IMAGES = 100, 6, 30


def record(path, seed=0, informative=(0, N_DRAWS), skip=()):
    """Store a run of `full` as `bench run --save-errors` does; classes differ on some draws."""
    path = path / f"toy-toy-full-{seed:08x}"
    manifest = a_manifest(
        [f"image-{i}" for i in range(N_IMAGES)],
        N_CLASSES,
        dataset="toy",
        backbone="toy",
        seed=seed,
        scoring={"loss": "l2", "noise": f"seed {seed}"},
        draws=N_DRAWS,
        run_id=path.name,
    )
    problem = Problem(np.arange(N_CLASSES), timestep_grid(N_DRAWS, 1000), np.ones(N_DRAWS), seed)
    everything = Evaluate(np.arange(N_CLASSES), np.arange(N_DRAWS))
    with RunFolder(path, manifest) as folder:
        for i in range(N_IMAGES):
            rng = np.random.default_rng([seed, i])
            truth = np.random.default_rng(i).integers(N_CLASSES)
            errors = 0.5 + 0.02 * rng.standard_normal((N_CLASSES, N_DRAWS))
            gap = 0.02 * (np.arange(N_CLASSES) != truth)
            errors[:, slice(*informative)] += gap[:, None]
            values = errors.astype(np.float32)
            table = ErrorTable(problem)
            table.tell(everything, Reply(values, values.size))
            decided = Decided(Sample(f"image-{i}", int(truth), {}))
            decided.evaluations, decided.equivalents = values.size, float(values.size)
            decided.outcome = table.outcome()
            decided.cells = [(everything, values)] if i not in skip else []
            folder.append(make_record(decided, 1.0), decided, problem.timesteps)
        folder.finish(summarize(manifest, list(read_records(path).values()), 1.0, None))
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return record(tmp_path_factory.mktemp("recorded"))


def test_replaying_full_gives_the_recorded_run(recording, tmp_path):
    summary = replay(recording, "full", {}, tmp_path)
    original = json.loads((recording / "summary.json").read_text())
    assert summary["metrics"] == original["metrics"]
    assert summary["cost"]["evaluations"] == original["cost"]["evaluations"]
    recorded, replayed = read_records(recording), read_records(tmp_path / summary["run_id"])
    for sample_id, before in recorded.items():
        assert {**before, "seconds": 0.0} == replayed[sample_id]


def test_a_replay_is_an_ordinary_run_that_says_what_it_is(recording, tmp_path):
    summary = replay(recording, "race", {"delta": "0.05"}, tmp_path, limit=12)
    assert summary["dataset"]["n_samples"] == 12
    assert summary["replayed_from"] == recording.name
    assert summary["cost"]["seconds"] is None and summary["cost"]["images_per_second"] is None
    assert 0 < summary["cost"]["evaluations_per_image"] < N_CLASSES * N_DRAWS / 4
    manifest = read_manifest(tmp_path / summary["run_id"])
    assert manifest.identity.replayed.run_id == recording.name
    assert summary["strategy"]["params"]["draws"] == N_DRAWS
    again = replay(recording, "race", {"delta": 0.05}, tmp_path, limit=12)
    assert again == {**summary, "resumed": "complete"}
    more = replay(recording, "race", {"delta": 0.05}, tmp_path)
    assert more["run_id"] == summary["run_id"] and more["dataset"]["n_samples"] == N_IMAGES


def test_the_command_prints_one_object_and_the_board_marks_it(recording, tmp_path):
    done = bench(
        "replay",
        recording,
        "--strategy",
        "uniform",
        "--set",
        "samples=8",
        "--results",
        tmp_path,
        "--json",
    )
    assert done.code == 0, done.err
    assert done.json["cost"]["evaluations_per_image"] == 8 * N_CLASSES
    assert set(done.json) >= {"run_id", "results_dir", "status", "dataset", "metrics", "cost"}
    board = bench("leaderboard", "--results", tmp_path, "--json").json
    assert [(row["kind"], row["rank"]) for row in board] == [("replayed", None)]
    shown = bench("show", done.json["run_id"], "--results", tmp_path)
    assert f"replayed from {recording.name}" in shown.out


def test_replay_imports_no_torch(recording, tmp_path):
    code = (
        "import sys; from pathlib import Path; from bench.recordings.replay import replay;"
        f"replay(Path({str(recording)!r}), 'race', {{}}, Path({str(tmp_path)!r}));"
        "assert not {'torch', 'diffusers', 'transformers', 'datasets'} & set(sys.modules)"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("strategy", "params", "message"),
    [
        ("uniform", {"draws": 50}, "recorded 100 draws"),
        ("adaptive", {"samples": "5,500"}, "a stage cannot have more than draws=100"),
        ("rase", {}, "Did you mean 'race'"),
        ("race", {"dleta": 1}, "Did you mean 'delta'"),
    ],
)
def test_what_does_not_fit_is_refused(recording, tmp_path, strategy, params, message):
    with pytest.raises(UserError, match=message):
        replay(recording, strategy, params, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_errors_is_refused(recording, tmp_path):
    without = replay(recording, "race", {}, tmp_path)
    with pytest.raises(UserError, match="--strategy full --save-errors"):
        open_recording(tmp_path / without["run_id"])


def test_a_recording_with_missing_cells_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not hold every cell"):
        open_recording(record(tmp_path, skip=(0,)))


def test_sweep(recording, tmp_path):
    other = record(tmp_path, seed=1)
    done = bench("sweep", recording, "--against", other, "--plot", tmp_path / "front.png", "--json")
    assert done.code == 0, done.err
    rows = done.json
    assert (tmp_path / "front.png").stat().st_size > 10_000
    by_name = {row["strategy"]["name"]: row for row in rows}
    assert by_name["full"]["agreement"] == 1.0
    assert set(by_name) >= {"adaptive", "uniform", "halving", "paired-ttest", "race"}
    for row in rows:
        low, high = row["agreement_ci95"]
        assert 0 <= low <= row["agreement"] <= high <= 1
        assert row["run_id"] is None and row["metrics"]["accuracy"] <= 1
    front = [row for row in rows if row["pareto"]]
    assert front and all(not sweeps._beats(a, b) for a in rows for b in front)
    assert rows[0]["self_agreement"]["n_samples"] == N_IMAGES
    table = bench("sweep", recording, "--strategies", "race,full", "--limit", 10)
    assert table.code == 0 and "race delta=0.05" in table.out and "uniform" not in table.out


def test_self_agreement_wants_the_same_run_with_other_noise(recording, tmp_path):
    assert sweeps.self_agreement(recording, record(tmp_path, seed=2))["agreement"] > 0.9
    with pytest.raises(UserError, match="same noise"):
        sweeps.self_agreement(recording, recording)
    replayed = replay(recording, "race", {}, tmp_path)
    with pytest.raises(UserError, match=r"differs in|every cell"):
        sweeps.self_agreement(recording, tmp_path / replayed["run_id"])


def test_learn_order_finds_the_timesteps_that_tell(tmp_path):
    path = record(tmp_path, informative=(60, 75))  # timesteps 605 to 745
    learned = learn_order(path)
    low, high = map(int, learned["order"].split("-"))
    assert 600 <= low < high <= 750
    assert learned["cost"] < learned["cost_even"]
    assert 0.02 < learned["span"] < 0.3
    even = replay(path, "race", {}, tmp_path)["cost"]["evaluations_per_image"]
    banded = replay(path, "race", {"order": learned["order"]}, tmp_path)
    assert banded["cost"]["evaluations_per_image"] < 0.8 * even
    # What is promised is what a replay then takes, of some images as well.
    assert learned["cost"] == pytest.approx(banded["cost"]["evaluations_per_image"])
    assert learned["cost_even"] == pytest.approx(even)
    some = learn_order(path, limit=10)
    again = replay(path, "race", {"order": some["order"]}, tmp_path / "some", limit=10)
    assert some["cost"] == pytest.approx(again["cost"]["evaluations_per_image"])
    done = bench("learn-order", path, "--json", "--out", tmp_path / "order.json")
    assert done.json["order"] == learned["order"]
    assert json.loads((tmp_path / "order.json").read_text()) == done.json


def test_calibration_error():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, False, True, False])
    expected = (2 * 0.95 - 1 + (2 * 0.55 - 1)) / 4
    assert calibration_error(confidence, correct) == pytest.approx(expected)


def test_softmax_finds_its_temperature():
    rng = np.random.default_rng(0)
    records = []
    for _ in range(4000):  # labels drawn from a softmax at temperature 0.01: calibrated then
        scores = np.sort(rng.uniform(0, 0.05, size=5))
        shares = np.exp(-scores / 0.01)
        label = rng.choice(5, p=shares / shares.sum())
        top = [[c, float(s), 9] for c, s in enumerate(scores)]
        records.append({"label": int(label), "prediction": 0, "confidence": 1.0, "top": top})
    wrong = np.mean([r["label"] != 0 for r in records])
    assert confidence_error(records) == pytest.approx(wrong)
    assert softmax_error(records) < 0.05


def test_confidence_by_evaluations_is_learned_from_other_images():
    rng = np.random.default_rng(0)

    def records(evaluations: np.ndarray) -> list[dict]:
        right = rng.random(len(evaluations)) < 1 / (1 + evaluations / 400)
        return [
            {"label": 0, "prediction": int(not r), "evaluations": int(e)}
            for r, e in zip(right, evaluations, strict=True)
        ]

    assert effort_error(records(rng.integers(40, 4000, size=4000))) < 0.05
    assert effort_error(records(np.full(4000, 100))) is None
    memorised = records(np.arange(200))  # every value once: in-sample it would be near 0
    assert effort_error(memorised) > 0.01
