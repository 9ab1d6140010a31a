"""The spread of an accuracy, against closed forms and by the coverage of simulated studies."""

from typing import Any

import numpy as np
import pytest
from helpers.matrix import matrix

from bench.stats.inference.shares import accuracy_interval
from bench.stats.inference.variance import _by_reach, image_error, spread


def interval(*args: Any, **options: Any) -> tuple[float, float]:
    ends = spread(*args, **options).interval
    assert ends is not None
    return ends


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
    matrix(
        [(3, 1, (0.02, 0.0, 0.2)), (3, 1, (0.05, 0.0, 0.2)), (8, 6, (0.0, 0.0, 0.2))],
        [(3, 1, (0.05, 0.0, 0.2))],
    ),
)
def test_intervals_over_seeds_cover_the_truth(
    seeds: int, templates: int, by: tuple[float, float, float]
) -> None:
    rng, studies = np.random.default_rng(1), 100
    covered = of_images = 0
    for _ in range(studies):
        values = simulated(rng, seeds, templates, 80, by)
        low, high = interval(values, over="seeds")
        covered += low <= 0.5 <= high
        low, high = interval(values)
        of_images += low <= 0.5 <= high
    assert covered / studies >= 0.93
    assert of_images / studies <= 0.9 or by[0] < 0.05  # these seeds alone: another question


def test_each_part_of_the_spread_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [spread(simulated(rng, 6, 4, 400, (0.02, 0.05, 0.4))) for _ in range(40)]

    def root(values: list[float | None]) -> float:
        return float(np.sqrt(np.mean(np.square(np.array(values, dtype=float)))))

    assert root([one.of_seeds for one in found]) == pytest.approx(0.0206, rel=0.15)
    assert root([one.of_templates for one in found]) == pytest.approx(0.0503, rel=0.2)
    assert root([one.of_images for one in found]) == pytest.approx(0.412 / 20, rel=0.05)


def test_the_range_of_templates_is_of_their_means_over_seeds() -> None:
    values = simulated(np.random.default_rng(5), 3, 4, 60, (0.02, 0.05, 0.4))
    means = values.mean(axis=(0, 2))
    assert spread(values).range_of_templates == pytest.approx((means.min(), means.max()))
    assert spread(values[:, :1]).range_of_templates is None


def test_clusters_are_drawn_whole() -> None:
    """Ten images that are right or wrong together count as one."""
    rng = np.random.default_rng(3)
    groups = rng.random(60) < 0.5
    right = np.repeat(groups, 10)[None, None, :]
    clusters = np.repeat(np.arange(60), 10)
    alone, whole = (image_error(right.astype(float), by) for by in (None, clusters))
    assert whole / alone == pytest.approx(np.sqrt(10), rel=0.01)
    found = spread(right, clusters)
    assert found.clusters == 60
    assert found.of_images == pytest.approx(float(groups.std(ddof=1)) / np.sqrt(60))


@pytest.mark.parametrize("wrong", [0, 1, 9])
def test_runs_that_agree_have_the_interval_of_one(wrong: int) -> None:
    """And a single answer of three runs that differs does not make 36 images into 108."""
    right = np.arange(36)[None, None, :] >= wrong
    one, many = interval(right), interval(np.broadcast_to(right, (3, 2, 36)))
    assert many == pytest.approx(one, abs=1e-9)
    almost = np.ones((3, 1, 36), bool)
    almost[0, 0, 0] = False
    assert interval(almost)[0] < interval(np.ones((1, 1, 36), bool))[0] + 1e-9


def test_clusters_that_are_all_right_count_as_images() -> None:
    low, high = interval(np.ones((1, 1, 60), bool), np.repeat(np.arange(6), 10))
    assert (low, high) == pytest.approx(accuracy_interval(6, 6))


def test_an_interval_stays_between_nothing_and_all() -> None:
    right = np.ones((3, 2, 24))
    right[0, :, :2] = 0.0
    low, high = interval(right)
    assert 0.7 < low < spread(right).value < high < 1.0


def test_a_mean_of_another_range_has_the_normal_interval_within_it() -> None:
    assert _by_reach(4.0, 1.0, (0.0, 10.0), 9) == (3.0, 5.0)
    assert _by_reach(9.5, 1.0, (0.0, 10.0), 9) == (8.5, 10.0)
