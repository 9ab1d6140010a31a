"""Learn weights of noise levels from labelled images, by logistic regression on bucketed errors.

After Clark & Jaini (2023, section 4.3): the errors of each class of an image are averaged in each
of 20 buckets of levels. The weights are positive, and maximise the likelihood of the labels under a
softmax of the negative weighted errors.
"""

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import optimize

BUCKETS = 20
RIDGE = 1e-3  # ridge penalty on log weights, so that uninformative buckets keep the mean weight
FLOOR = 1e-3  # smallest weight, relative to the largest
WEIGHT_FOLDS = 5


def bucket_of(levels: Ints, n_levels: int) -> Ints:
    """Return the bucket, 0 to 19, of each of `levels`, indices below `n_levels`."""
    return np.asarray(levels * BUCKETS // n_levels)


def bucket_errors(errors: Floats, buckets: Ints) -> Floats:
    """Return the sum of `errors` [..., N] in each bucket divided by N, float64 [..., 20]."""
    members = (buckets[:, None] == np.arange(BUCKETS)).astype(np.float64)
    return np.asarray(errors @ members / len(buckets))


def fit_weights(errors: Floats, labels: Ints) -> Floats:
    """Return the weight of each bucket, float64 [20], rounded to 0.001; the largest is 1.

    `errors` are float64 [images, classes, 20], NaN for classes that an image does not have.
    """
    present: Bools = ~np.isnan(errors[:, :, 0])  # [images, classes]
    filled = np.where(present[..., None], errors, 0.0)
    # Only differences between classes matter. The scale starts the search at a useful temperature.
    centred = filled - filled.sum(axis=1, keepdims=True) / present.sum(axis=1)[:, None, None]
    centred[~present] = 0.0
    scale = 1 / max(float(centred.sum(axis=2)[present].std()), 1e-12)
    features = centred * scale
    used = np.abs(centred).sum(axis=(0, 1)) > 0  # [20], buckets with draws
    true_class = np.arange(len(labels)), labels

    def loss(log_weights: Floats) -> tuple[float, Floats]:
        """Return the penalised negative log likelihood and its gradient, float64 [20]."""
        weights = np.exp(log_weights) * used
        logits = np.where(present, -(features @ weights), -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        residuals = probabilities.copy()
        residuals[true_class] -= 1
        by_weight = -np.einsum("ic,icb->b", residuals, features) / len(labels)
        spread = log_weights - log_weights.mean()
        likelihood = np.log(np.maximum(probabilities[true_class], 1e-300)).mean()
        return float(RIDGE * spread @ spread - likelihood), by_weight * weights + 2 * RIDGE * spread

    start, bounds = np.zeros(BUCKETS), [(-12, 12)] * BUCKETS  # so that no weight overflows
    fit = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = np.exp(fit.x - fit.x[used].max())
    return np.asarray(np.round(np.clip(weights, FLOOR, 1.0), 3))  # rounded: equal on all machines


def accuracy_of(weights: Floats, errors: Floats, labels: Ints) -> float:
    """Return the share of images whose true class has the lowest weighted error."""
    scores = errors @ weights
    lowest = np.where(np.isnan(scores), np.inf, scores).argmin(axis=1)
    return float((lowest == labels).mean())


def cross_validated(errors: Floats, labels: Ints, owners: Ints | None = None) -> float:
    """Return the five-fold cross-validated accuracy of fitted weights.

    `owners`, int64 [images], is the item of each image, from 0 on: its images stay in one fold.
    """
    owners = np.arange(len(labels)) if owners is None else owners
    count = int(owners.max()) + 1
    folds = (np.random.default_rng(0).permutation(count) % min(WEIGHT_FOLDS, count))[owners]
    hits = 0.0
    for fold in np.unique(folds):
        held_out = folds == fold
        weights = fit_weights(errors[~held_out], labels[~held_out])
        hits += accuracy_of(weights, errors[held_out], labels[held_out]) * held_out.sum()
    return hits / len(labels)
