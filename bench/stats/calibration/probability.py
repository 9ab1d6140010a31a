"""Probability that a decision is right, by logistic regression fitted on calibration images.

Its quality is measured by proper scoring rules, calibration errors, and accuracy against coverage.
Throughout, `probability` is float64 [n], and `right` is bool [n], of each decision.
"""

from collections.abc import Iterable
from typing import get_args

import numpy as np

from bench.contracts.strategy import Bools, Floats, Ints
from bench.machine.libraries import special
from bench.stats.inference.score import unit_sums
from bench.stats.inference.shares import mean_interval
from bench.store.calibrations import Calibrated, Feature, Fit
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Amount, Count, Document, Interval, Number, Positive, Share

MAX_MASS_BINS = 10
MIN_PER_BIN = 10  # images per bin; there are fewer bins rather than smaller ones
RESAMPLES = 1000
MULTIPLES = np.linspace(0, 4, 41)  # multiples of the observed gaps that the interval tests
INTERVAL_TAIL = 0.025
MIN_PROBABILITY = 1e-12  # probabilities are clipped to it before a logarithm


class MassBin(Document):
    """A bin of a reliability diagram with bins of equal mass: about as many images each."""

    n: Positive
    probability: Share  # mean probability of its images
    accuracy: Share
    accuracy_ci95: Interval


class Covered(Document):
    """Accuracy of the decisions with the highest probabilities."""

    coverage: Share  # share of all decisions that these are
    accuracy: Share  # accuracy of these; expected accuracy if ties are broken at random


class Probability(Document):
    """Quality of the probabilities of a run's decisions."""

    n: Count  # number of decisions with a probability
    calibrated_on: str  # id of the run with the calibration images
    calibrated_images: Positive  # number of calibration images
    accuracy: Share  # accuracy of the n decisions, the base rate
    mean: Share  # mean probability
    brier: Amount  # Brier score: mean squared difference of probability and outcome
    brier_skill: Number | None  # 1 - Brier score / that of the base rate, None if that is 0
    log_loss: Amount  # mean negative logarithm of the probability of the outcome
    log_loss_skill: Number | None  # the same skill for the log loss; None as for `brier_skill`
    ece: Share | None  # expected calibration error, bins of equal mass; None with a single bin
    ece_ci95: Interval | None
    ece_if_calibrated: Share | None  # its expectation if the probabilities were exact
    bins: list[MassBin]  # reliability diagram
    coverage: list[Covered]  # accuracy-coverage curve
    coverage_area: Share  # area under that curve; equals the accuracy if probabilities rank nothing


def skill(
    probability: Floats,
    right: Bools,
    calibrated_on: str,
    images: int,
    clusters: Ints | None = None,
) -> Probability:
    """Return the quality of probabilities fitted on so many `images` of the run `calibrated_on`.

    `clusters`, int64 [n], are the images that items are about; None if these are independent.
    """
    n, base = len(right), float(right.mean())
    brier = float(np.square(probability - right).mean())
    loss, loss_of_base = log_loss(probability, right), log_loss(np.full(n, base), right)
    bins = equal_mass(probability)
    ece = interval = expected = None
    if len(bins) > 1:
        ece = binned_error(probability, right, bins)
        expected, interval = calibration_interval(probability, right, bins, clusters)
    return Probability(
        n=n,
        calibrated_on=calibrated_on,
        calibrated_images=images,
        accuracy=base,
        mean=min(float(probability.mean()), 1.0),  # rounding
        brier=brier,
        brier_skill=_skill(brier, base * (1 - base)),
        log_loss=loss,
        log_loss_skill=_skill(loss, loss_of_base),
        ece=ece,
        ece_ci95=interval,
        ece_if_calibrated=expected,
        bins=[_mass_bin(probability, right, images, clusters) for images in bins],
        coverage=coverage(probability, right),
        coverage_area=coverage_area(probability, right),
    )


def _skill(score: float, of_constant: float) -> float | None:
    """Return the share of a constant's score that is saved; None if it is 0."""
    return 1 - score / of_constant if of_constant > 1e-9 else None


def log_loss(probability: Floats, right: Bools) -> float:
    """Return the mean negative logarithm of the probability of the outcome."""
    of_outcome = np.where(right, probability, 1 - probability)
    return float(-np.log(np.maximum(of_outcome, MIN_PROBABILITY)).mean())


def equal_mass(probability: Floats) -> list[Ints]:
    """Return the images of each bin of equal mass, ascending; equal values share a bin."""
    order = np.argsort(probability, kind="stable")
    count = max(1, min(MAX_MASS_BINS, len(order) // MIN_PER_BIN))
    cuts = np.linspace(0, len(order), count + 1).round().astype(int)[1:-1]
    ordered = probability[order]
    # A cut between equal values moves to the first of them.
    cuts = np.unique(np.searchsorted(ordered, ordered[cuts], side="left"))
    return [part for part in np.split(order, cuts[cuts > 0]) if len(part)]


def binned_error(probability: Floats, right: Bools, bins: list[Ints]) -> float:
    """Return the expected calibration error: mean |probability - accuracy| of `equal_mass` bins."""
    gaps = (abs(float((probability[images] - right[images]).sum())) for images in bins)
    return min(sum(gaps) / len(right), 1.0)


def calibration_interval(
    probability: Floats, right: Bools, bins: list[Ints], clusters: Ints | None = None
) -> tuple[float, tuple[float, float]]:
    """Return the calibration error expected of exact probabilities, and its 95 % interval.

    The sum of (probability - outcome) over a bin is nearly normal. For exact probabilities, its
    variance is the sum of p (1 - p), and its mean absolute value sqrt(2 / pi) standard deviations.

    Noise biases the error upwards, more so with few images per bin, so the coverage of a bootstrap
    interval is too low. The interval inverts a test instead: it contains each true error under
    which an error at least as large as the observed one, and one at least as small, both have a
    probability of at least 2.5 %. The bias depends on the distribution of the true error over bins,
    so three are tested: as observed, equal in all bins, and all in the worst bin.
    """
    n, sizes = len(right), np.array([len(images) for images in bins])
    residuals = [probability[images] - right[images] for images in bins]
    sums = np.array([of_bin.sum() for of_bin in residuals])
    units = [None if clusters is None else clusters[images] for images in bins]
    spread = np.sqrt(
        [
            np.square(unit_sums((of_bin - of_bin.mean())[None], of_units)[0]).sum()
            for of_bin, of_units in zip(residuals, units, strict=True)
        ]
    )
    variances = np.array([(probability[i] * (1 - probability[i])).sum() for i in bins])
    expected = float(np.sqrt(2 * variances / np.pi).sum() / n)
    noise = np.random.default_rng(0).normal(0.0, spread, size=(RESAMPLES, len(bins)))
    ece = binned_error(probability, right, bins)
    in_worst = ece * n * (np.abs(sums) == np.abs(sums).max())
    plausible = [ece]
    for true_sums in (sums, ece * sizes, in_worst):
        errors = np.stack([np.abs(m * true_sums + noise).sum(axis=1) / n for m in MULTIPLES])
        tails = np.minimum((errors >= ece).mean(axis=1), (errors <= ece).mean(axis=1))
        plausible += (ece * MULTIPLES[tails >= INTERVAL_TAIL]).tolist()
    return expected, (min(plausible), min(max(plausible), 1.0))


def _mass_bin(probability: Floats, right: Bools, images: Ints, clusters: Ints | None) -> MassBin:
    of_bin, units = right[images], None if clusters is None else clusters[images]
    return MassBin(
        n=len(images),
        probability=min(float(probability[images].mean()), 1.0),
        accuracy=float(of_bin.mean()),
        accuracy_ci95=mean_interval(of_bin, units),
    )


def coverage(probability: Floats, right: Bools) -> list[Covered]:
    """Return the accuracy of the k most probable decisions, at up to 20 evenly spaced k."""
    hits, n = expected_hits(probability, right), len(right)
    steps = np.unique(np.ceil(np.arange(1, 21) * n / 20).astype(int))
    return [Covered(coverage=k / n, accuracy=min(hits[k - 1] / k, 1.0)) for k in steps.tolist()]


def coverage_area(probability: Floats, right: Bools) -> float:
    """Return the mean over k = 1 … n of the accuracy of the k most probable decisions."""
    hits = expected_hits(probability, right)
    return min(float((hits / np.arange(1, len(hits) + 1)).mean()), 1.0)


def expected_hits(probability: Floats, right: Bools) -> Floats:
    """Return how many of the k most probable are right, k = 1 … n, if ties are in random order."""
    _, rank = np.unique(-probability, return_inverse=True)
    ends = np.cumsum(np.bincount(rank))  # number of images with at least each probability
    hits = np.cumsum(np.bincount(rank, weights=right))
    return np.asarray(np.interp(np.arange(1, len(right) + 1), np.r_[0, ends], np.r_[0, hits]))


SKILL_FOLDS = 5
MIN_OUTCOMES = 5  # a fit needs as many right decisions, and as many wrong ones


def fit_probability(decided: Decisions, rows: Bools | bool = True) -> Fit | None:
    """Fit a logistic regression of whether a decision is right (Platt scaling).

    Platt, "Probabilistic outputs for support vector machines" (1999). A few hundred images suffice
    to fit it; an isotonic regression on so few would predict 0 and 1, whose log loss is infinite.
    The features are the margin on the draws shared by winner and runner-up, on a scale that is
    linear for small and logarithmic for large margins (arcsinh), and the logarithm of the cost of
    the decision (Clark & Jaini, NeurIPS 2023). Constant features are left out. None if all are
    constant, or if fewer than MIN_OUTCOMES decisions are right or fewer than MIN_OUTCOMES are
    wrong. `rows`, bool [n], are the decisions to use.
    """
    from sklearn.linear_model import LogisticRegression

    usable = _usable(decided) & rows
    right = decided.correct[usable]
    if min(right.sum(), (~right).sum()) < MIN_OUTCOMES:
        return None
    unit = float(np.median(np.abs(decided.margins[usable])))
    features = {name: _feature(name, decided, unit)[usable] for name in get_args(Feature)}
    varied = {name: values for name, values in features.items() if np.ptp(values) > 0}
    if not varied or unit == 0:  # most margins are 0
        return None
    table = np.stack(list(varied.values()), axis=1)
    centre, spread = table.mean(axis=0), table.std(axis=0)
    model = LogisticRegression().fit((table - centre) / spread, right)
    return Fit(
        images=int(usable.sum()),
        right=int(right.sum()),
        unit=unit,
        features=list(varied),
        centre=centre.tolist(),
        spread=spread.tolist(),
        weights=model.coef_[0].tolist(),
        intercept=float(model.intercept_[0]),
    )


def probabilities(fit: Fit, decided: Decisions) -> Floats:
    """Return the probability that each decision is right; NaN without a margin or cost."""
    total = np.full(len(decided), fit.intercept)
    parts = zip(fit.features, fit.centre, fit.spread, fit.weights, strict=True)
    for name, centre, spread, weight in parts:
        total += weight * (_feature(name, decided, fit.unit) - centre) / spread
    return np.where(_usable(decided), special.expit(total), np.nan)


def held_out_skill(decided: Decisions) -> float | None:
    """Return the skill of `fit_probability` in log loss on images that were not fitted.

    The images of each of five folds get probabilities fitted on the others; None if one has no fit.
    """
    fold_of = np.random.default_rng(0).permutation(len(decided)) % SKILL_FOLDS
    probability = np.full(len(decided), np.nan)
    for fold in range(SKILL_FOLDS):
        if (fit := fit_probability(decided, fold_of != fold)) is None:
            return None
        probability[fold_of == fold] = probabilities(fit, decided)[fold_of == fold]
    usable = _usable(decided)
    right = decided.correct[usable]
    constant = np.full(len(right), right.mean())
    return _skill(log_loss(probability[usable], right), log_loss(constant, right))


def _usable(decided: Decisions) -> Bools:
    """Return which decisions have all features, bool [n]."""
    return np.isfinite(decided.margins) & ~decided.failed & (decided.equivalents > 0)


def _feature(name: Feature, decided: Decisions, unit: float) -> Floats:
    """Return a feature of the regression, float64 [n]. `unit` is the scale of margins."""
    if name == "margin":
        return np.arcsinh(decided.margins / (unit or 1.0))
    return np.log(np.maximum(decided.equivalents, 1e-9))  # "evaluations": gradients included


def fit_for(manifest: Manifest, calibrated: Iterable[Calibrated]) -> tuple[Calibrated, Fit] | None:
    """Return the fit that applies to a run, with the calibration that it comes from, or None.

    It is the one with the most images, none of the run's, for the same data, model and strategy.
    """
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
    """Return the `probabilities` by the calibration that applies, or None if none does."""
    fit = fit_for(manifest, calibrated)
    return None if fit is None else probabilities(fit[1], decided)


def probability_skill(
    decided: Decisions, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Probability | None:
    """Return the quality of the probabilities of a run's decisions, or None if it has none."""
    if (calibrated_fit := fit_for(manifest, calibrated)) is None:
        return None
    stored, fit = calibrated_fit
    values = probabilities(fit, decided)
    known = np.isfinite(values)
    if not known.any():
        return None
    clusters = None if decided.clusters is None else decided.clusters[known]
    source = stored.manifest.run_id
    return skill(values[known], decided.correct[known], source, fit.images, clusters)
