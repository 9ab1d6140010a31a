"""Weights of noise levels, fitted to labelled images: logistic regression on bucketed errors.

Clark & Jaini (2023, section 4.3): the levels are cut into 20 buckets, an image's class errors are
averaged per bucket, and non-negative weights are fitted so that the softmax of the negative
weighted errors gives the label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints

BUCKETS = 20
RIDGE = 1e-3  # on the logarithms' spread: uninformative buckets keep the mean weight
FLOOR = 1e-3  # smallest weight, relative to the largest
WEIGHT_FOLDS = 5


def bucket_of(levels: Ints, n_levels: int) -> Ints:
    """Return the bucket of each level, int64: 20 equal parts of the model's levels."""
    return np.asarray(levels * BUCKETS // n_levels)


def bucket_errors(errors: Floats, buckets: Ints) -> Floats:
    """Return errors [..., N] summed by bucket, over the number of draws, float64 [..., 20]."""
    members = (buckets[:, None] == np.arange(BUCKETS)).astype(np.float64)
    return np.asarray(errors @ members / len(buckets))


def fit_weights(errors: Floats, labels: Ints) -> Floats:
    """Return the buckets' weights in thousandths, float64 [20]; the largest is 1.

    `errors` are float64 [images, classes, 20], from `bucket_errors`, NaN where an image has fewer
    classes; `labels` are int64 [images].
    """
    from scipy.optimize import minimize

    there: NDArray[np.bool_] = ~np.isnan(errors[:, :, 0])
    filled = np.where(there[..., None], errors, 0.0)
    # Only differences count; the scale makes the search start near a useful temperature.
    away = filled - filled.sum(axis=1, keepdims=True) / there.sum(axis=1)[:, None, None]
    away[~there] = 0.0
    sums = away.sum(axis=2)
    scale = 1 / max(float((sums if there.all() else sums[there]).std()), 1e-12)
    features = away * scale
    seen = np.abs(away).sum(axis=(0, 1)) > 0
    right = np.arange(len(labels)), labels

    def loss(log_weights: Floats) -> tuple[float, Floats]:
        weights = np.exp(log_weights) * seen
        logits = np.where(there, -(features @ weights), -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        shares /= shares.sum(axis=1, keepdims=True)
        wrong = shares.copy()
        wrong[right] -= 1
        slope = -np.einsum("ic,icb->b", wrong, features) / len(labels)
        spread = log_weights - log_weights.mean()
        value = -np.log(np.maximum(shares[right], 1e-300)).mean() + RIDGE * spread @ spread
        return float(value), slope * weights + 2 * RIDGE * spread

    start = np.zeros(BUCKETS)
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-12, 12)] * BUCKETS)
    weights = np.exp(fit.x - fit.x[seen].max())
    return np.asarray(np.round(np.clip(weights, FLOOR, 1.0), 3))  # the same digits on every machine


def accuracy_of(weights: Floats, errors: Floats, labels: Ints) -> float:
    """Return the share of images whose lowest weighted error is their label's."""
    scores = errors @ weights
    lowest = np.where(np.isnan(scores), np.inf, scores).argmin(axis=1)
    return float((lowest == labels).mean())


def cross_validated(
    errors: Floats, labels: Ints, seed: int = 0, owners: Ints | None = None
) -> float:
    """Return the five-fold cross-validated accuracy of fitted weights.

    `errors` and `labels` are as for `fit_weights`; `owners`, int64 [images] from 0 on, keeps the
    images of an item in one fold.
    """
    count = len(labels) if owners is None else int(owners.max()) + 1
    part = np.random.default_rng(seed).permutation(count) % min(WEIGHT_FOLDS, count)
    part = part if owners is None else part[owners]
    right = 0.0
    for fold in np.unique(part):
        out = part == fold
        weights = fit_weights(errors[~out], labels[~out])
        right += accuracy_of(weights, errors[out], labels[out]) * out.sum()
    return right / len(labels)
