"""Probability that a decision is right, fitted on other images of the same question.

Its quality is measured by proper scores, calibration, and accuracy against coverage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats, Ints
from bench.stats.paired import Bools
from bench.stats.shares import accuracy_interval
from bench.store.calibrations import Calibrated, Feature, Fit
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.fields import Amount, Count, Document, Interval, Number, Positive, Share

MAX_MASS_BINS = 10
MIN_PER_BIN = 10  # images per bin; with fewer images there are fewer bins
RESAMPLES = 1000
MULTIPLES = np.linspace(0, 4, 41)  # of the observed gaps, tried for the interval
INTERVAL_TAIL = 0.025
NEAREST_TO_CERTAIN = 1e-12  # a probability's distance from 0 and 1 in a logarithm


class MassBin(Document):
    """A bin of a reliability diagram; all have about as many images."""

    n: Positive
    probability: Share  # mean probability of its images
    accuracy: Share
    accuracy_ci95: Interval


class Covered(Document):
    """The accuracy of the most probable decisions."""

    coverage: Share  # share of decisions covered
    accuracy: Share  # their accuracy; its mean where equally probable ones are partly covered


class Probability(Document):
    """Quality of the probabilities of a run's decisions."""

    n: Count  # number of decisions with a probability
    calibrated_on: str  # id of the run on whose images they were fitted
    calibrated_images: Positive  # number of these images
    accuracy: Share  # accuracy of the n decisions, the base rate
    mean: Share  # mean probability
    brier: Amount  # mean squared difference of probability and outcome
    brier_skill: Number | None
    """Share by which it is below that of the base rate, the best constant; None: all decisions are
    right, or all wrong."""
    log_loss: Amount  # mean of minus the logarithm of the probability of the outcome
    log_loss_skill: Number | None  # share by which it is below the base rate's; None: as above
    ece: Share | None  # expected calibration error over bins of equal mass; None: all are equal
    ece_ci95: Interval | None
    ece_if_calibrated: Share | None  # expected error of exact probabilities on as many images
    bins: list[MassBin]  # reliability diagram
    coverage: list[Covered]  # accuracy against coverage
    coverage_area: Share  # area below that curve; the accuracy, if the probabilities rank nothing


def skill(probability: Floats, right: Bools, calibrated_on: str, images: int) -> Probability:
    """Return the quality of probabilities, float64 [n], fitted on images of another run."""
    n, base = len(right), float(right.mean())
    brier = float(np.square(probability - right).mean())
    constant = np.full(n, base)
    loss = log_loss(probability, right)
    groups = equal_mass(probability)
    ece = interval = expected = None
    if len(groups) > 1:
        ece = binned_error(probability, right, groups)
        expected, interval = calibration_interval(probability, right, groups)
    return Probability(
        n=n,
        calibrated_on=calibrated_on,
        calibrated_images=images,
        accuracy=base,
        mean=min(float(probability.mean()), 1.0),
        brier=brier,
        brier_skill=_skill(brier, base * (1 - base)),
        log_loss=loss,
        log_loss_skill=_skill(loss, log_loss(constant, right)),
        ece=ece,
        ece_ci95=interval,
        ece_if_calibrated=expected,
        bins=[_bin(probability[g], right[g]) for g in groups],
        coverage=coverage(probability, right),
        coverage_area=coverage_area(probability, right),
    )


def _skill(score: float, reference: float) -> float | None:
    return 1 - score / reference if reference > 1e-9 else None


def log_loss(probability: Floats, right: Bools) -> float:
    """Return the mean of minus the logarithm of the probability of what happened."""
    happened = np.where(right, probability, 1 - probability)
    return float(-np.log(np.maximum(happened, NEAREST_TO_CERTAIN)).mean())


def equal_mass(probability: Floats) -> list[Ints]:
    """Return the images of each bin, ascending: about equally many, equal values together."""
    order = np.argsort(probability, kind="stable")
    count = max(1, min(MAX_MASS_BINS, len(order) // MIN_PER_BIN))
    cuts = np.linspace(0, len(order), count + 1).round().astype(int)[1:-1]
    ordered = probability[order]
    # A cut inside a run of equal values moves to the run's start.
    cuts = np.unique(np.searchsorted(ordered, ordered[cuts], side="left"))
    return [part for part in np.split(order, cuts[cuts > 0]) if len(part)]


def binned_error(probability: Floats, right: Bools, groups: list[Ints]) -> float:
    """Return the mean over bins of |mean probability - accuracy|, weighted by their images."""
    gaps = (abs(float((probability[g] - right[g]).sum())) for g in groups)
    return min(sum(gaps) / len(right), 1.0)


def calibration_interval(
    probability: Floats, right: Bools, groups: list[Ints]
) -> tuple[float, tuple[float, float]]:
    """Return the expected error of exact probabilities, and the 95 % interval of the error.

    The sum of (probability - outcome) over a bin is nearly normal. For exact probabilities its
    variance is the sum of p (1 - p), and its mean absolute value sqrt(2 / pi) standard deviations.
    Noise makes the error larger, the more so the fewer images a bin has, so a bootstrap covers too
    seldom. The interval therefore inverts a test: it contains the errors under which one as large
    as the observed, or as small, has a probability of at least 2.5 %. Noise adds less where gaps
    are even, so gaps as observed, equal ones, and a single one in the worst bin are tried.
    """
    n = len(right)
    sums = np.array([(probability[g] - right[g]).sum() for g in groups])
    spread = np.array([np.std(probability[g] - right[g]) * np.sqrt(len(g)) for g in groups])
    exact = np.array([(probability[g] * (1 - probability[g])).sum() for g in groups])
    noise = np.random.default_rng(0).normal(0.0, spread, size=(RESAMPLES, len(groups)))
    ece, expected = binned_error(probability, right, groups), np.sqrt(2 * exact / np.pi).sum() / n
    sizes, worst = np.array([len(g) for g in groups]), np.abs(sums).max()
    tried = [ece]
    for gaps in (sums, ece * sizes, ece * n * (np.abs(sums) == worst)):
        drawn = np.stack([np.abs(m * gaps + noise).sum(axis=1) / n for m in MULTIPLES])
        held = np.minimum((drawn >= ece).mean(axis=1), (drawn <= ece).mean(axis=1)) >= INTERVAL_TAIL
        tried += (ece * MULTIPLES[held]).tolist()
    return float(expected), (min(tried), min(max(tried), 1.0))


def _bin(probability: Floats, right: Bools) -> MassBin:
    n, hits = len(right), int(right.sum())
    interval = accuracy_interval(hits, n)
    mean = min(float(probability.mean()), 1.0)
    return MassBin(n=n, probability=mean, accuracy=hits / n, accuracy_ci95=interval)


def coverage(probability: Floats, right: Bools) -> list[Covered]:
    """Return accuracy against coverage at 20 equal steps, from the most probable decisions on."""
    hits, n = expected_hits(probability, right), len(right)
    steps = np.unique(np.ceil(np.arange(1, 21) * n / 20).astype(int))
    return [Covered(coverage=k / n, accuracy=min(hits[k - 1] / k, 1.0)) for k in steps.tolist()]


def coverage_area(probability: Floats, right: Bools) -> float:
    """Return the mean over k of the accuracy of the k most probable decisions, ties averaged."""
    hits = expected_hits(probability, right)
    return min(float((hits / np.arange(1, len(hits) + 1)).mean()), 1.0)


def expected_hits(probability: Floats, right: Bools) -> Floats:
    """Return the expected right decisions among the k most probable, k = 1 … n, float64 [n]."""
    _, place = np.unique(-probability, return_inverse=True)
    ends = np.cumsum(np.bincount(place))  # number of images up to the end of each value
    hits = np.cumsum(np.bincount(place, weights=right))
    return np.asarray(np.interp(np.arange(1, len(right) + 1), np.r_[0, ends], np.r_[0, hits]))


MIN_OUTCOMES = 5  # right decisions, and wrong ones, for a fit


def fit_probability(decided: Decisions) -> Fit | None:
    """Fit a logistic regression of "the decision is right" (Platt scaling).

    Platt, "Probabilistic outputs for support vector machines" (1999). A few hundred images
    determine its weights; an isotonic regression of so few predicts 0 and 1, whose logarithmic loss
    is infinite. The features are the margin on the shared draws of winner and runner-up, on a scale
    that is linear for small and logarithmic for large margins, and the logarithm of the cost until
    the decision (Clark & Jaini, NeurIPS 2023). A constant feature is left out. Returns None where
    fewer than five decisions are right, or wrong, or nothing varies.
    """
    from sklearn.linear_model import LogisticRegression

    usable = _usable(decided)
    right = decided.correct[usable]
    if min(right.sum(), (~right).sum()) < MIN_OUTCOMES:
        return None
    unit = float(np.median(np.abs(decided.margins[usable])))
    features = {name: _feature(name, decided, unit)[usable] for name in get_args(Feature)}
    used = {name: values for name, values in features.items() if unit > 0 and np.ptp(values) > 0}
    if not used:
        return None
    table = np.stack(list(used.values()), axis=1)
    centre, spread = table.mean(axis=0), table.std(axis=0)
    model = LogisticRegression().fit((table - centre) / spread, right)
    return Fit(
        images=int(usable.sum()),
        right=int(right.sum()),
        unit=unit,
        features=list(used),
        centre=centre.tolist(),
        spread=spread.tolist(),
        weights=model.coef_[0].tolist(),
        intercept=float(model.intercept_[0]),
    )


def probabilities(fit: Fit, decided: Decisions) -> Floats:
    """Return the probability that each decision is right, float64 [n]; NaN where unknown."""
    from scipy.special import expit

    total = np.full(len(decided), fit.intercept)
    parts = zip(fit.features, fit.centre, fit.spread, fit.weights, strict=True)
    for name, centre, spread, weight in parts:
        total += weight * (_feature(name, decided, fit.unit) - centre) / spread
    return np.where(_usable(decided), expit(total), np.nan)


def _usable(decided: Decisions) -> NDArray[np.bool_]:
    return np.isfinite(decided.margins) & ~decided.failed & (decided.equivalents > 0)


def _feature(name: Feature, decided: Decisions, unit: float) -> Floats:
    if name == "margin":
        return np.arcsinh(decided.margins / (unit or 1.0))
    return np.log(np.maximum(decided.equivalents, 1e-9))


def fit_for(manifest: Manifest, calibrated: Iterable[Calibrated]) -> tuple[Calibrated, Fit] | None:
    """Return the largest fit of a run's question and strategy on other images, with its source."""
    fits = [
        (stored, setting.fit)
        for stored in calibrated
        if stored.applies_to(manifest) and not stored.shared_images(manifest)
        for setting in (*stored.calibration.settings, *stored.calibration.others)
        if setting.fit is not None and setting.strategy.plain() == manifest.strategy.plain()
    ]
    return max(fits, key=lambda pair: pair[1].images, default=None)


def known_probabilities(
    decided: Decisions, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Floats | None:
    """Return the probability that each decision is right, NaN: unknown; None: no calibration."""
    fit = fit_for(manifest, calibrated)
    return None if fit is None else probabilities(fit[1], decided)


def probability_skill(
    decided: Decisions, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Probability | None:
    """Return how good the probabilities of a run's decisions are; None: there are none."""
    if (calibrated_fit := fit_for(manifest, calibrated)) is None:
        return None
    calibration, fit = calibrated_fit
    values = probabilities(fit, decided)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    return skill(values[finite], decided.correct[finite], calibration.manifest.run_id, fit.images)
