"""Agreement of a run's decisions with those of the full sweep, and of a run with other noise."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts.strategy import Floats
from bench.stats.risk import LEVEL
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.fields import Amount, Count, Document, Interval, Positive, Share
from bench.store.identity import digest
from bench.store.summary import permuted, read_swept

# Beta prior of the share that agrees: mean 0.984, worth 30 images. Under a uniform prior, 30 of 30
# would show 82 % of 360 instead of 90 %, and 28 of 30 as much as here. Coverage needs no prior.
AGREEMENT_PRIOR = (30.0, 0.5)


class Audit(Document):
    """How many decisions of a run the full sweep makes as well."""

    of: Positive  # images that the run has decided
    exact: Count  # of these, images with every prompt on every draw: they agree by construction
    images: Positive  # images drawn at random from the others, and swept
    same: Count  # of these, images that the full sweep decides as the run does
    agreement_ci95: Interval
    """Share of all decisions that agree: a 95 % confidence sequence, valid at every size."""
    tie: Amount | None = None  # difference of mean errors that the strategy takes for none
    same_or_tied: Count | None = None
    """Swept images whose class is worse than the full sweep's by `tie` at most."""
    same_or_tied_ci95: Interval | None = None
    evaluations: Count  # forward passes of the sweep, which no cost of the run contains
    evaluation_equivalents: Amount  # the same, with gradients counted in evaluations
    seconds: Amount  # scoring time of the sweep

    def contradicts(self, risk: float) -> bool:
        """Return whether more decisions differ than a share `risk`, with 95 %."""
        return 1 - self.agreement_ci95[1] > risk


def agreement_counts(same: int, n: int, population: int) -> tuple[int, int]:
    """Return the ends of the 95 % confidence sequence of a count in a finite population.

    Prior-posterior ratio of Waudby-Smith & Ramdas, "Confidence sequences for sampling without
    replacement", NeurIPS 2020: for a count K fixed beforehand, prior(K) / posterior(K) is a
    martingale of mean one over the random order, so it ever reaches 20 with probability 5 % at
    most (Ville). The prior is beta-binomial; any prior is valid.

    Args:
        same: number of agreeing images among those drawn.
        n: number of images drawn, without replacement.
        population: number of all images.
    """
    from scipy.stats import betabinom, hypergeom

    counts = np.arange(same, population - (n - same) + 1)
    drawn = hypergeom.logpmf(same, population, counts, n)
    expected = betabinom.logpmf(same, n, *AGREEMENT_PRIOR)
    kept = counts[expected - drawn < -log(1 - LEVEL)]
    return int(kept[0]), int(kept[-1])


def read_audit(path: Path, manifest: Manifest, decided: Decisions | None = None) -> Audit | None:
    """Return the audit of a run's decisions, read where they are not given; None: there is none.

    The images of the run's permutation count up to the first one that was not swept: they are a
    simple random sample, in whatever order images were swept.
    """
    swept = read_swept(path)
    if not swept:
        return None
    decided = read_decisions(path, manifest) if decided is None else decided
    most = max(line["evaluations"] for line in swept.values())
    names, sweepable = decided.sample_ids.to_pylist(), sweepable_rows(decided, manifest, most)
    answers = {names[row]: int(decided.predictions[row]) for row in np.flatnonzero(sweepable)}
    counted = []
    for name in permuted(answers, digest(manifest.identity)):
        if name not in swept:
            break
        counted.append((answers[name], swept[name]))
    if not counted:
        return None
    total, n = int((~decided.failed).sum()), len(counted)
    exact, lines = total - len(answers), [line for _, line in counted]

    def shares(agreeing: int) -> tuple[float, float]:
        low, high = agreement_counts(agreeing, n, len(answers))
        return (exact + low) / total, (exact + high) / total

    same = sum(answer == line["prediction"] for answer, line in counted)
    audit = Audit(
        of=total,
        exact=exact,
        images=n,
        same=same,
        agreement_ci95=shares(same),
        evaluations=sum(line["evaluations"] for line in lines),
        evaluation_equivalents=round(sum(line["equivalents"] for line in lines), 2),
        seconds=round(sum(line["seconds"] for line in lines), 4),
    )
    tie = manifest.strategy.params.get("tie")
    if not isinstance(tie, int | float) or not tie:
        return audit
    close = sum(line["regret"] is not None and line["regret"] <= tie for line in lines)
    update = {"tie": tie, "same_or_tied": close, "same_or_tied_ci95": shares(close)}
    return audit.model_copy(update=update)


def sweepable_rows(decided: Decisions, manifest: Manifest, most: float) -> NDArray[np.bool_]:
    """Return bool [n]: which decided images took fewer evaluations than the `most` of a sweep.

    Every cell is evaluated once at most, so an image with all of them was swept by the run itself.
    `decided_by` does not tell: the winner may have been dropped before the draws ran out.
    Where a sweep may cost more for one image than for another, all of them are sweepable.
    """
    uneven = manifest.items is not None or manifest.identity.candidates is not None
    return np.asarray(~decided.failed & ((decided.evaluations < most) | uneven))


DOUBTFUL = 0.05  # probability of another decision above which a decision is doubtful
NODES = 24  # of the Gauss-Hermite quadrature
SURE = 9.0  # standard errors of the margin beyond which a probability is below 1e-9
FEWEST_DRAWS = 16  # with fewer, a standard error counts the trend along the levels as noise
EM_STEPS = 3  # of EM from a flat prior; more of them overstate what several rivals change
FEWEST_IMAGES = 20  # fewer say too little of the other gaps
GAPS = np.arange(0, 12.01, 0.1)  # of the prior, in standard errors


class Repeatability(Document):
    """Expected number of decisions that differ between two independent runs."""

    n: Count  # number of decisions whose margin has a standard error
    expected_flips: Amount  # expected number of these that another run decides otherwise
    flip_share: Share  # their share
    doubtful: Count  # number of decisions that another run changes with a probability above 0.05
    accuracy_stderr: Amount | None
    """Standard deviation of the accuracy over runs with other noise, for these images; None where
    images share their noise: their decisions change together, and the records do not say how
    much."""
    unknown: Count = 0  # number of decisions whose margin has no standard error


def flip_probability(
    margins: Floats,
    margin_stderr: Floats,
    gaps: Floats | None = None,
) -> Floats:
    """Return the probability that an independent run decides otherwise, float64 [n].

    For strategies that evaluate every prompt on the same draws. A score is a mean over draws, so
    nearly normal about its expectation. With no prior knowledge of the expectations, the scores of
    an independent run are normal about the present ones with twice the variance: the predictive
    distribution of a normal mean under a flat prior (Gelman et al., Bayesian Data Analysis, section
    2.5). With one rival the decision changes with probability Phi(-m / (s sqrt(2))). With several,
    any two scores are taken to differ with the standard error s of the margin, and the probability
    is 1 - E_z prod_c Phi(g_c / s + z) over a standard normal z. It is too low where most classes
    are tied: the winner was chosen by its lead.

    A strategy that stops at a significant difference has a biased margin: this does not hold there.

    Args:
        margins: float64 [n]; NaN where unknown.
        margin_stderr: float64 [n], the standard error s; NaN where unknown.
        gaps: float64 [n, C], each other class's score less the winner's, g_c, infinity where there
            is none; None: only the runner-up is known, whose gap is the margin.

    Returns:
        NaN where the margin or its standard error is unknown.
    """
    from scipy.special import log_ndtr
    from scipy.stats import norm

    with np.errstate(divide="ignore", invalid="ignore"):
        lead = margins / margin_stderr
        flips = norm.sf(lead / np.sqrt(2))
    rows = np.flatnonzero((margin_stderr > 0) & (lead < SURE))
    if gaps is not None and len(rows):
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        stays = np.zeros(len(rows))
        with np.errstate(over="ignore"):
            leads = gaps[rows] / margin_stderr[rows, None]
        for z, weight in zip(nodes, weights / weights.sum(), strict=True):
            stays += weight * np.exp(log_ndtr(leads + z).sum(axis=1))
        flips[rows] = np.maximum(flips[rows], np.clip(1 - stays, 0, 1))
    return np.where(
        np.isfinite(margins) & (margin_stderr == 0), np.where(margins > 0, 0, 0.5), flips
    )


def prior_factor(lead: Floats) -> Floats:
    """Return the factor of `flip_probability` under a prior fitted to the images, float64 [n].

    Under a flat prior, gaps near zero are as frequent as others. A model that separates the classes
    has few of them, others have many. Empirical Bayes (Robbins 1956): a prior of the true gaps on a
    grid, by a few steps of EM on the leads of all images, each normal about its gap; a winner may
    be the wrong one. The factor is the posterior probability that another run differs, of winner
    and runner-up alone, divided by that under the flat prior. Ones with fewer than 20 images.
    `lead` is float64 [n], margins in standard errors, 0 or more.
    """
    from scipy.stats import norm

    if len(lead) < FEWEST_IMAGES:
        return np.ones(len(lead))
    lead = np.clip(lead, 0, GAPS[-1])
    bins, rows = np.unique(np.round(lead, 2), return_inverse=True)
    right = norm.pdf(bins[:, None] - GAPS)
    wrong = norm.pdf(bins[:, None] + GAPS) * (GAPS > 0)
    prior, counts = np.full(len(GAPS), 1 / len(GAPS)), np.bincount(rows)
    for _ in range(EM_STEPS):
        posterior = prior * (right + wrong)
        prior = counts @ (posterior / posterior.sum(axis=1, keepdims=True)) / len(lead)
    differs = prior * (right * norm.sf(GAPS) + wrong * norm.cdf(GAPS))
    own = differs.sum(axis=1) / (prior * (right + wrong)).sum(axis=1)
    return np.asarray((own / norm.sf(bins / np.sqrt(2)))[rows])


def repeatability(decided: Decisions, own_noise: bool = False) -> Repeatability | None:
    """Return the expected number of decisions that an independent run makes otherwise.

    The strategy evaluates every prompt on the same draws. A change matters to the accuracy only
    where the winner or the runner-up is the label; where the runner-up was not read, it is taken to
    be. With `own_noise`, each image has noise of its own, so that decisions are independent.
    Returns None where no margin has a standard error, or images have fewer than 16 draws.
    """
    flips = flip_probability(decided.margins, decided.margin_stderr, decided.gaps)
    estimated = np.isfinite(flips)
    few = decided.draws is not None and (decided.draws[estimated] < FEWEST_DRAWS).any()
    if few or not estimated.any():
        return None
    noisy = estimated & (decided.margin_stderr > 0)
    if noisy.any():
        factor = prior_factor(decided.margins[noisy] / decided.margin_stderr[noisy])
        flips[noisy] = np.minimum(flips[noisy] * factor, 1.0)
    matters = decided.correct | (
        True if decided.runner_up is None else decided.runner_up == decided.labels
    )
    n, p = int(estimated.sum()), flips[estimated]
    variance = (p * (1 - p))[matters[estimated]].sum()
    return Repeatability(
        n=n,
        expected_flips=float(p.sum()),
        flip_share=float(p.mean()),
        doubtful=int((p > DOUBTFUL).sum()),
        accuracy_stderr=float(np.sqrt(variance) / n) if own_noise else None,
        unknown=len(decided) - n,
    )
