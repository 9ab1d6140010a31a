"""The curve of learned weights over the number of labelled images, on made-up recordings."""

from pathlib import Path

import numpy as np
import pytest
from curve import SHOTS, curve, learned, read_rows, read_run, table
from helpers.places import ROOT
from helpers.recorded import N_DRAWS, N_IMAGES, record

from bench.contracts.draw_order import timestep_grid
from bench.contracts.levels import diffusion_levels
from bench.stats.calibration.level_weights import BUCKETS
from bench.store.formats.cells import draw_table, write_draws

SEEDS = 5


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("recorded")
    where = (20, 60)  # draws on which the classes differ
    made = record(root, informative=where), record(root, informative=where, first=N_IMAGES)
    levels = diffusion_levels(np.linspace(0.99, 0.01, 1000), "epsilon")
    for run in made:
        rows = timestep_grid(N_DRAWS, len(levels))
        write_draws(run, draw_table(levels, rows, np.ones(N_DRAWS)))
    return made


def test_a_row_is_the_mean_over_drawings_on_other_images(runs: tuple[Path, Path]) -> None:
    learn, test = map(read_run, runs)
    rows = list(curve("toy", {"clean": learn}, test, "clean", SEEDS))
    fits = [shots for shots in SHOTS if shots <= np.bincount(learn.labels).min()]
    assert fits
    assert [row.shots for row in rows] == [0, *fits]
    equal = np.mean(test.errors.sum(axis=2).argmin(axis=1) == test.labels)
    assert rows[0].accuracy == pytest.approx(equal) and rows[0].images == N_IMAGES
    for row in rows[1:]:
        accuracies = []
        for weights in learned(learn, row.shots, SEEDS):
            assert weights.shape == (BUCKETS,) and weights.max() == 1
            scores = (test.errors * weights).sum(axis=2)
            accuracies.append(np.mean(scores.argmin(axis=1) == test.labels))
        assert row.accuracy == pytest.approx(np.mean(accuracies))
        assert row.gain == pytest.approx(np.mean(accuracies) - equal)
        assert row.interval[0] <= row.accuracy <= row.interval[1]
        assert row.gain_interval[0] <= row.gain <= row.gain_interval[1]


def test_the_published_table_is_that_of_the_stored_rows() -> None:
    folder = ROOT / "studies" / "few-shot-weights"
    assert table(read_rows(folder / "rows.json")) in (folder / "README.md").read_text()
