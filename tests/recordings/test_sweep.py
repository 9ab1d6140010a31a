"""A sweep compares strategies on one recording and recommends only what is shown to agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import recorded as recordings
from helpers.command import bench
from helpers.recorded import N_CLASSES, N_DRAWS, N_IMAGES, record, replay
from helpers.refusals import refused
from helpers.runs import store

from bench.recordings import replay as sweeps


@pytest.mark.long
def test_sweep(recording: Path, tmp_path: Path) -> None:
    given = tmp_path / replay(recording, "uniform", {"samples": 3}, tmp_path)["run_id"]
    done = bench(
        *("sweep", recording, "--points", given),
        *("--plot", tmp_path / "front.png", "--json"),
    )
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
    table = bench(
        "sweep",
        recording,
        "--strategies",
        "race,full",
        "--limit",
        10,
        "--points",
        given,
        "--set",
        "deviation=0.05",
    )
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
