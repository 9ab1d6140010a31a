"""Weights learned from made-up errors that tell on some levels only."""

import numpy as np
import pytest

from bench.stats.calibration.level_weights import (
    BUCKETS,
    accuracy_of,
    bucket_errors,
    bucket_of,
    cross_validated,
    fit_weights,
)

LEVELS = np.arange(5, 1000, 10)  # a hundred draws
TELLS = (LEVELS >= 500) & (LEVELS < 600)


def made(images: int, gap: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(6, size=images)
    errors = 0.5 + 0.1 * rng.standard_normal((images, 6, len(LEVELS)))
    errors[np.arange(images), labels] -= gap * TELLS
    return errors, labels


def test_buckets_are_equal_parts_of_all_levels() -> None:
    assert bucket_of(np.array([0, 49, 50, 999]), 1000).tolist() == [0, 0, 1, 19]
    errors, _ = made(3, 0.1)
    found = bucket_errors(errors, bucket_of(LEVELS, 1000))
    np.testing.assert_allclose(found[..., 10], errors[..., 50:55].sum(axis=-1) / len(LEVELS))
    np.testing.assert_allclose(found.sum(axis=-1), errors.mean(axis=-1))


def test_the_levels_that_tell_get_the_weight() -> None:
    errors, labels = made(400, 0.1)
    buckets = bucket_errors(errors, bucket_of(LEVELS, 1000))
    weights = fit_weights(buckets, labels)
    assert weights.max() == 1 and weights.min() > 0
    assert set(np.argsort(weights)[-2:]) == {10, 11}
    assert weights[[10, 11]].min() > 3 * np.delete(weights, [10, 11]).max()
    other, truth = made(400, 0.1, seed=1)
    unseen = bucket_errors(other, bucket_of(LEVELS, 1000))
    even = accuracy_of(np.ones(BUCKETS), unseen, truth)
    learned = accuracy_of(weights, unseen, truth)
    assert learned > even + 0.1
    assert cross_validated(buckets, labels) == pytest.approx(learned, abs=0.08)


def test_images_with_fewer_classes_count_with_those_they_have() -> None:
    errors, labels = made(200, 0.1)
    buckets = bucket_errors(errors, bucket_of(LEVELS, 1000))
    wide = np.concatenate([buckets, np.full((200, 2, BUCKETS), np.nan)], axis=1)
    np.testing.assert_array_equal(fit_weights(wide, labels), fit_weights(buckets, labels))
    few = labels < 3  # and of some, only three classes
    wide[few, 3:] = np.nan
    weights = fit_weights(wide, labels)
    assert set(np.argsort(weights)[-2:]) == {10, 11}
    right = (buckets[few, :3] @ weights).argmin(axis=1) == labels[few]
    assert accuracy_of(weights, wide[few], labels[few]) == right.mean()
    whole = cross_validated(wide, labels)
    assert cross_validated(wide, labels, owners=np.arange(200)) == whole
    assert cross_validated(wide, labels, owners=np.arange(200) // 2) == pytest.approx(
        whole, abs=0.1
    )


def test_where_nothing_tells_nothing_is_promised() -> None:
    errors, labels = made(120, 0.0)
    buckets = bucket_errors(errors, bucket_of(LEVELS, 1000))
    assert cross_validated(buckets, labels) < 0.3


def test_buckets_without_draws_keep_a_weight() -> None:
    errors, labels = made(50, 0.2)
    few = np.flatnonzero(TELLS)
    buckets = bucket_errors(errors[..., few], bucket_of(LEVELS[few], 1000))
    weights = fit_weights(buckets, labels)
    assert np.isfinite(weights).all() and (weights > 0).all()
