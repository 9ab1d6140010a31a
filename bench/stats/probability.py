"""The probability that a decision is right, fitted on other images of the same question."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.stats.skill import Probability, skill
from bench.store.calibrations import Calibrated, Feature, Fit
from bench.store.decisions import Decided, Decisions, as_decisions
from bench.store.documents import Manifest

MIN_OUTCOMES = 5  # right decisions, and wrong ones, that a fit needs


def fit_probability(decided: Decided) -> Fit | None:
    """Fit a logistic regression of "the decision is right" (Platt scaling).

    Platt, "Probabilistic outputs for support vector machines" (1999). It has one weight per
    feature, and a few hundred images determine it; an isotonic regression of so few says 0 and 1,
    whose logarithmic loss is infinite. The features are the margin on the draws that winner and
    runner-up share, on a scale that is linear for small and logarithmic for large margins, and the
    logarithm of the cost until the decision (Clark & Jaini, NeurIPS 2023). A feature that does not
    vary is left out.

    Returns:
        None where fewer than five decisions are right, or wrong, or nothing varies.
    """
    from sklearn.linear_model import LogisticRegression

    decided = as_decisions(decided)
    known = _known(decided)
    right = decided.correct[known]
    if min(right.sum(), (~right).sum()) < MIN_OUTCOMES:
        return None
    unit = float(np.median(np.abs(decided.margins[known])))
    every: dict[Feature, Floats] = {
        "margin": _feature("margin", decided, unit)[known],
        "evaluations": _feature("evaluations", decided, unit)[known],
    }
    used = {name: values for name, values in every.items() if unit > 0 and np.ptp(values) > 0}
    if not used:
        return None
    table = np.stack(list(used.values()), axis=1)
    centre, spread = table.mean(axis=0), table.std(axis=0)
    model = LogisticRegression().fit((table - centre) / spread, right)
    return Fit(
        images=int(known.sum()),
        right=int(right.sum()),
        unit=unit,
        features=list(used),
        centre=centre.tolist(),
        spread=spread.tolist(),
        weights=model.coef_[0].tolist(),
        intercept=float(model.intercept_[0]),
    )


def probabilities(fit: Fit, decided: Decided) -> Floats:
    """Return float64 [n], the probability that each decision is right; NaN where unknown."""
    decided = as_decisions(decided)
    total = np.full(len(decided), fit.intercept)
    parts = zip(fit.features, fit.centre, fit.spread, fit.weights, strict=True)
    for name, centre, spread, weight in parts:
        total += weight * (_feature(name, decided, fit.unit) - centre) / spread
    found = np.full(len(decided), np.nan)
    known = _known(decided)
    found[known] = 1 / (1 + np.exp(-np.clip(total[known], -700, 700)))
    return found


def _known(decided: Decisions) -> NDArray[np.bool_]:
    return np.isfinite(decided.margins) & ~decided.failed & (decided.equivalents > 0)


def _feature(name: Feature, decided: Decisions, unit: float) -> Floats:
    if name == "margin":
        return np.arcsinh(decided.margins / (unit or 1.0))
    return np.log(np.maximum(decided.equivalents, 1e-9))


def fit_for(manifest: Manifest, calibrated: Iterable[Calibrated]) -> tuple[Calibrated, Fit] | None:
    """Return the fit that says how probable the decisions of a run are; of several, the largest.

    It must be of the same question and the same strategy with the same parameters, and of none of
    the run's images.
    """
    found = [
        (each, setting.fit)
        for each in calibrated
        if each.fits(manifest) and not each.shared(manifest)
        for setting in (*each.calibration.settings, *each.calibration.others)
        if setting.fit is not None and setting.strategy.plain() == manifest.strategy.plain()
    ]
    return max(found, key=lambda pair: pair[1].images, default=None)


def known_probabilities(
    decided: Decided, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Floats | None:
    """Return float64 [n], how probable it is that each decision of a run is right.

    NaN where it is not known; None where no calibration says it of any.
    """
    found = fit_for(manifest, calibrated)
    return None if found is None else probabilities(found[1], decided)


def probability_skill(
    decided: Decided, manifest: Manifest, calibrated: Iterable[Calibrated]
) -> Probability | None:
    """Return how good the probabilities of a run's decisions are.

    None where no calibration is of the run's question and strategy and of other images, or no
    decision has a probability.
    """
    if (calibrated_fit := fit_for(manifest, calibrated)) is None:
        return None
    calibration, fit = calibrated_fit
    decided = as_decisions(decided)
    values = probabilities(fit, decided)
    finite = np.isfinite(values)
    if not finite.any():
        return None
    return skill(values[finite], decided.correct[finite], calibration.manifest.run_id, fit.images)
