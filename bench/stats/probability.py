"""Probability that a decision is right, fitted on other images of the same question."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.stats.skill import Probability, skill
from bench.store.calibrations import Calibrated, Feature, Fit
from bench.store.decisions import Decisions
from bench.store.documents import Manifest

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
        if stored.fits(manifest) and not stored.shared(manifest)
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
