"""The leaderboard never ranks together what does not compare; pictures are made of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import bench
from PIL import Image

from bench.analysis.leaderboard import leaderboard
from bench.analysis.metrics import accuracy_interval, metrics, worst_confusions
from bench.errors import UserError


def store_run(results: Path, name: str, accuracy: float, **changes: Any) -> None:
    """Write a complete run's manifest and summary."""
    run = results / name
    run.mkdir(parents=True)
    data = {"name": "d", "version": 1, "split": "test", "n_total": 100, "n_samples": 100}
    data.update(changes.get("dataset", {}))
    summary = {
        "run_id": name,
        "dataset": data,
        "backbone": {"name": "b", "trained_on": changes.get("trained_on")},
        "strategy": {"name": "full", "params": {"draws": 5}},
        "metrics": {
            "accuracy": accuracy,
            "accuracy_ci95": [accuracy - 0.1, accuracy + 0.1],
            **dict.fromkeys(("precision_weighted", "recall_weighted", "f1_weighted"), accuracy),
        },
        "cost": {"evaluations_per_image": 50.0, "seconds": 1.0},
    }
    (run / "manifest.json").write_text(json.dumps({"run_id": name, "identity": {}, "format": 1}))
    (run / "summary.json").write_text(json.dumps(summary))


def test_ranks_count_within_a_kind(tmp_path: Path) -> None:
    store_run(tmp_path, "zero-shot-a", 0.5)
    store_run(tmp_path, "zero-shot-b", 0.6)
    store_run(tmp_path, "trained", 0.9, trained_on="d/train")
    store_run(tmp_path, "unknown", 0.8, trained_on="unknown")
    store_run(tmp_path, "subset", 0.99, dataset={"n_samples": 10})
    store_run(tmp_path, "newer-data", 0.4, dataset={"version": 2})
    (tmp_path / "incomplete").mkdir()
    (tmp_path / "incomplete" / "manifest.json").write_text('{"run_id": "x", "identity": {}}')
    reported = {"dataset": "d", "split": "test", "backbone": "b", "strategy": "s", "accuracy": 0.7}
    (tmp_path / "reported.json").write_text(json.dumps([{**reported, "source": "a paper"}]))
    rows = {(row["source"].removeprefix("run "), row["rank"]) for row in leaderboard(tmp_path)}
    assert rows == {
        ("zero-shot-b", 1),
        ("zero-shot-a", 2),
        ("trained", 1),
        ("unknown", 1),
        ("subset", None),
        ("newer-data", 1),
        ("a paper", None),
    }
    shown = bench("leaderboard", "--results", tmp_path)
    assert "trained on d/train" in shown.out and "(1) a paper" in shown.out
    assert "d/test, version 1" in shown.out and "d/test, version 2" in shown.out


def test_damaged_reported_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "reported.json").write_text('[{"dataset": "d"}]')
    with pytest.raises(UserError, match=r"reported.json does not hold"):
        leaderboard(tmp_path)


def test_the_published_start_stands_on_ours() -> None:
    published = Path(__file__).parents[1] / "results" / "published"
    [row] = [r for r in leaderboard(published, "ucmerced") if r["kind"] == "reported"]
    figures = [row[k] for k in ("accuracy", "precision_weighted", "recall_weighted", "f1_weighted")]
    assert figures == [0.5012, 0.5349, 0.5012, 0.4881] and row["n_samples"] == 421


def record(sample_id: str, label: int, prediction: int | None) -> dict[str, Any]:
    top = [] if prediction is None else [[prediction, 0.1, 5], [(prediction + 1) % 3, 0.2, 5]]
    return {"sample_id": sample_id, "label": label, "prediction": prediction, "top": top}


def test_metrics_by_hand() -> None:
    """Four of class 0 (three right), two of class 1 (one failed, one right)."""
    said = [(0, 0), (0, 0), (0, 0), (0, 1), (1, 1), (1, None)]
    records: Any = [record(str(i), label, p) for i, (label, p) in enumerate(said)]
    found = metrics(records, 3)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["precision_weighted"] == pytest.approx((4 * 1 + 2 * 0.5) / 6)
    assert found["top5_accuracy"] == pytest.approx(4 / 6)
    assert worst_confusions(records, ["a", "b", "c"]) == [("a", "b", 1)]
    # Wilson 1927, checked against the closed form by hand for 4 of 6.
    low, high = accuracy_interval(4, 6)
    assert (round(low, 4), round(high, 4)) == (0.3, 0.9032)


def test_a_run_ends_with_pictures(tmp_path: Path) -> None:
    done = bench("run", "digits", "--limit", 12, "--results", tmp_path)
    assert done.code == 0, done.err
    pictures = {path.name: path for path in tmp_path.rglob("*.png")}
    assert set(pictures) == {"confusion.png", "examples.png"}
    for path in pictures.values():
        assert str(path) in done.out
        with Image.open(path) as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 8
