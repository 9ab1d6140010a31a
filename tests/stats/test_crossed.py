"""The crossed bootstrap, against closed forms and by the coverage of simulated studies."""

from __future__ import annotations

import numpy as np
import pytest

from bench.stats import crossed
from bench.stats.crossed import resampled_means, spread


def simulated(
    rng: np.random.Generator, seeds: int, templates: int, n: int, by: tuple[float, float, float]
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Return values with additive effects of seeds, templates and images, about 0.5."""
    of_seeds, of_templates, of_images = by
    return np.asarray(
        0.5
        + of_seeds * rng.standard_normal((seeds, 1, 1))
        + of_templates * rng.standard_normal((1, templates, 1))
        + of_images * rng.standard_normal((1, 1, n))
        + 0.1 * rng.standard_normal((seeds, templates, n))
    )


@pytest.mark.parametrize(
    ("seeds", "templates", "by"),
    [(8, 1, (0.02, 0.0, 0.4)), (8, 8, (0.02, 0.03, 0.3)), (8, 6, (0.0, 0.0, 0.4))],
)
def test_intervals_cover_the_truth(
    seeds: int, templates: int, by: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossed, "RESAMPLES", 300)
    rng, studies = np.random.default_rng(1), 200
    covered = 0
    for study in range(studies):
        found = spread(simulated(rng, seeds, templates, 80, by), seed=study)
        covered += found.interval[0] <= 0.5 <= found.interval[1]
    assert 0.90 <= covered / studies <= 0.995  # 95 %, less what few seeds cost


def test_each_part_of_the_spread_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossed, "RESAMPLES", 10)
    rng = np.random.default_rng(2)
    found = [spread(simulated(rng, 6, 4, 400, (0.02, 0.05, 0.4))) for _ in range(40)]

    def root(values: list[float | None]) -> float:
        return float(np.sqrt(np.mean(np.square(np.array(values, dtype=float)))))

    assert root([one.of_seeds for one in found]) == pytest.approx(0.0206, rel=0.15)
    assert root([one.of_templates for one in found]) == pytest.approx(0.0503, rel=0.2)
    assert root([one.of_images for one in found]) == pytest.approx(0.412 / 20, rel=0.05)


def test_clusters_are_drawn_whole() -> None:
    """Ten images that are right or wrong together count as one."""
    rng = np.random.default_rng(3)
    groups = rng.random(60) < 0.5
    right = np.repeat(groups, 10)[None, None, :]
    clusters = np.repeat(np.arange(60), 10)
    alone, whole = (
        resampled_means(right.astype(float)),
        resampled_means(right.astype(float), clusters),
    )
    assert whole.std() / alone.std() == pytest.approx(np.sqrt(10), rel=0.1)
    found = spread(right, clusters)
    assert found.clusters == 60
    assert found.of_images == pytest.approx(float(groups.std(ddof=1)) / np.sqrt(60))


def test_the_interval_of_one_run_is_wilsons_and_says_what_it_leaves_out() -> None:
    right = np.arange(50)[None, None, :] < 45
    found = spread(right)
    assert found.interval == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert "for the noise of this one seed" in found.in_words
    assert spread(np.ones((3, 1, 20), bool)).interval[0] < 0.9


def test_the_words_name_each_part() -> None:
    rng = np.random.default_rng(4)
    said = spread(simulated(rng, 5, 1, 100, (0.003, 0.0, 0.2))).in_words
    assert said.startswith("Another seed moves accuracy by ") and "other images by " in said


def test_an_interval_stays_between_nothing_and_all() -> None:
    right = np.ones((3, 2, 24))
    right[0, :, :2] = 0.0
    low, high = spread(right).interval
    assert 0.7 < low < spread(right).accuracy < high < 1.0
