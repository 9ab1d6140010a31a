"""Agreement of a run's decisions with those of the full sweep, and with those under other noise.

An *audit* sweeps a random sample of a run's images. *Repeatability* is the expected number of
decisions that would change under independent noise; it needs no further scoring.
"""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

import numpy as np

from bench.contracts.strategy import Bools, Floats
from bench.stats.inference.paired import normal_cdf
from bench.stats.sequential.betting import count_interval
from bench.store.formats.decisions import Decisions
from bench.store.formats.documents import Manifest
from bench.store.formats.fields import Amount, Count, Document, Interval, Positive, Share
from bench.store.formats.identity import digest
from bench.store.summary import Swept, permuted


class Audit(Document):
    """Number of a run's decisions that agree with the full sweep, estimated from a sample."""

    of: Positive  # number of images that the run decided
    exact: Count  # number of these scored with every prompt on every draw: they agree necessarily
    images: Positive  # number of images drawn at random from the others, and swept
    same: Count  # number of swept images on which the full sweep agrees with the run
    agreement_ci95: Interval
    """Share of all decisions that agree: 95 % confidence sequence, valid at every sample size."""
    tie: Amount | None = None  # difference of mean errors that the strategy treats as a tie
    same_or_tied: Count | None = None
    """Number of swept images whose class has an error of at most `tie` above the lowest."""
    same_or_tied_ci95: Interval | None = None
    evaluations: Count  # forward passes of the sweep; not part of the run's cost
    evaluation_equivalents: Amount  # cost of the sweep, gradients included
    seconds: Amount  # scoring time of the sweep

    def contradicts(self, risk: float) -> bool:
        """Return whether the share of disagreements exceeds `risk`, at 95 % confidence."""
        return 1 - self.agreement_ci95[1] > risk


def audit_of(swept: Mapping[str, Swept], manifest: Manifest, decided: Decisions) -> Audit | None:
    """Return the audit of a run whose images `swept` were swept, or None if none was.

    Images are counted in the order of the run's fixed random permutation, up to the first that was
    not swept, so they are a simple random sample whatever the order in which they were swept.
    """
    if not swept:
        return None
    most = max(line["evaluations"] for line in swept.values())
    names, rows = decided.sample_ids.to_pylist(), sweepable_rows(decided, manifest, most)
    answers = {names[row]: int(decided.predictions[row]) for row in np.flatnonzero(rows)}
    counted = [*takewhile(swept.__contains__, permuted(answers, digest(manifest.identity)))]
    if not counted:
        return None
    total, n = int((~decided.failed).sum()), len(counted)
    exact, lines = total - len(answers), [swept[name] for name in counted]

    def agreement(agreeing: int) -> tuple[float, float]:
        """Return the interval of the share of all decisions that agree, if so many sweeps do."""
        low, high = count_interval(agreeing, n, len(answers))
        return (exact + low) / total, (exact + high) / total

    same = sum(answers[name] == swept[name]["prediction"] for name in counted)
    tie = manifest.strategy.params.get("tie")
    tied: dict[str, Any] = {}
    if isinstance(tie, int | float) and tie:
        # The regret is the error of the run's class in the sweep, above the lowest.
        close = sum(line["regret"] is not None and line["regret"] <= tie for line in lines)
        tied = {"tie": tie, "same_or_tied": close, "same_or_tied_ci95": agreement(close)}
    return Audit(
        of=total,
        exact=exact,
        images=n,
        same=same,
        agreement_ci95=agreement(same),
        evaluations=sum(line["evaluations"] for line in lines),
        evaluation_equivalents=round(sum(line["equivalents"] for line in lines), 2),
        seconds=round(sum(line["seconds"] for line in lines), 4),
        **tied,
    )


def sweepable_rows(decided: Decisions, manifest: Manifest, most: float) -> Bools:
    """Return a mask, bool [n], of the decided images that a full sweep could decide otherwise.

    These have fewer evaluations than `most`, the number of a sweep: a run evaluates each cell at
    most once, so an image with as many was swept by the run itself. To have used all draws is not
    enough, since the true winner may have been dropped on the way. Where the number of evaluations
    cannot tell a sweep, all decided images are included.
    """
    uneven = (
        manifest.items is not None  # each has its own number of texts
        or manifest.identity.candidates is not None  # each has its own prompts
        or manifest.parents is not None  # a tree has prompts that no sweep has
    )
    return np.asarray(~decided.failed & ((decided.evaluations < most) | uneven))


DOUBTFUL = 0.05  # a decision is doubtful if it would change with a larger probability
NODES = 24  # nodes of the Gauss-Hermite quadrature
SURE = 9.0  # lead in standard errors; beyond it, a change has a probability below 1e-9
FEWEST_DRAWS = 16  # with fewer, the trend along the noise levels counts as noise
EM_STEPS = 3  # from a flat prior; with more, decisions among several rivals are corrected too much
FEWEST_IMAGES = 20  # with fewer, the prior is not fitted
GAPS = np.arange(0, 12.01, 0.1)  # grid of the prior, in standard errors


class Repeatability(Document):
    """Expected number of decisions that differ between two runs with independent noise."""

    n: Count  # number of decisions whose margin has a standard error
    expected_flips: Amount  # expected number of these that differ in another run
    flip_share: Share  # expected share of these that differ
    doubtful: Count  # number of decisions that differ with a probability above 0.05
    accuracy_stderr: Amount | None
    """Standard deviation of the accuracy over runs with other noise, for these images. None if all
    images share their noise, because their decisions are then correlated by an unknown amount."""
    unknown: Count = 0  # number of decisions whose margin has no standard error


def flip_probability(margins: Floats, margin_stderr: Floats, gaps: Floats | None = None) -> Floats:
    """Return the probability that a run with independent noise decides otherwise, float64 [n].

    Valid for strategies that evaluate every prompt on the same draws, but not for those that stop
    at a significant difference, whose margins are biased.

    A score is a mean over draws, so it is nearly normal about its expectation. Under a flat prior
    of the expectations, the scores of another run are normal about the present ones with twice the
    variance (Gelman et al., Bayesian Data Analysis, section 2.5). With one rival, margin m and its
    standard error s, the decision changes with probability Phi(-m / (s sqrt(2))). With several, the
    difference of any two scores is assumed to have the standard error s. Each score then has the
    variance s² / 2 in one run, and in another run it is normal about its present value with the
    variance s². The winner stays if it is below every rival, so the probability is
    1 - E_z prod_c Phi(g_c / s + z), where z, standard normal, is the winner's own deviation. It is
    too low if most classes are tied, because the winner was selected for its lead.

    `margins`, float64 [n], are the runner-up's score minus the winner's. A NaN in them or their
    standard errors gives NaN. `gaps` are the g_c, each class's score minus the winner's, float64
    [n, C], infinite for the winner itself and without a score; None if only the runner-up is known.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        lead = margins / margin_stderr
        flips = normal_cdf(-lead / np.sqrt(2))
    rows = np.flatnonzero((margin_stderr > 0) & (lead < SURE))
    if gaps is not None and len(rows):
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        stays = np.zeros(len(rows))
        with np.errstate(over="ignore"):
            leads = gaps[rows] / margin_stderr[rows, None]
        for z, weight in zip(nodes, weights / weights.sum(), strict=True):
            stays += weight * normal_cdf(leads + z).prod(axis=1)
        flips[rows] = np.maximum(flips[rows], np.clip(1 - stays, 0, 1))
    noiseless = np.isfinite(margins) & (margin_stderr == 0)
    return np.where(noiseless, np.where(margins > 0, 0, 0.5), flips)  # a tie is broken by chance


def prior_factor(lead: Floats) -> Floats:
    """Return a factor that corrects `flip_probability` for a prior fitted to the images.

    A flat prior assumes that true gaps near zero are as frequent as large ones, but a model that
    separates the classes well has few of them, and a poor one many. By empirical Bayes (Robbins
    1956), a prior of the true gaps is estimated on a grid, by a few steps of EM on the leads of all
    images, `lead`, in standard errors. Each is normal about its gap, and the winner may be the
    wrong one. The factor is the posterior probability that another run swaps winner and runner-up,
    divided by that under the flat prior; it is 1 with fewer than FEWEST_IMAGES images.
    """
    if len(lead) < FEWEST_IMAGES:
        return np.ones(len(lead))
    lead = np.clip(lead, 0, GAPS[-1])
    leads, rows = np.unique(np.round(lead, 2), return_inverse=True)
    right = np.exp(-((leads[:, None] - GAPS) ** 2) / 2)  # likelihood of a gap, the winner is right
    wrong = np.exp(-((leads[:, None] + GAPS) ** 2) / 2) * (GAPS > 0)  # a gap of 0 counts once
    prior, counts = np.full(len(GAPS), 1 / len(GAPS)), np.bincount(rows)
    for _ in range(EM_STEPS):
        posterior = prior * (right + wrong)
        prior = counts @ (posterior / posterior.sum(axis=1, keepdims=True)) / len(lead)
    swapped = prior * (right * normal_cdf(-GAPS) + wrong * normal_cdf(GAPS))
    fitted = swapped.sum(axis=1) / (prior * (right + wrong)).sum(axis=1)
    return np.asarray((fitted / normal_cdf(-leads / np.sqrt(2)))[rows])


def repeatability(decided: Decisions, own_noise: bool = False) -> Repeatability | None:
    """Return the expected number of decisions that differ in a run with independent noise.

    The strategy must evaluate every prompt on the same draws. A change affects the accuracy only if
    the winner or the runner-up is the label; an unknown runner-up is assumed to be. `own_noise` is
    whether each image has noise of its own. None if no margin has a standard error, or if an image
    has fewer than FEWEST_DRAWS draws.
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
    affects_accuracy = np.ones(len(decided), dtype=bool)
    if decided.runner_up is not None:
        affects_accuracy = decided.correct | (decided.runner_up == decided.labels)
    n, p = int(estimated.sum()), flips[estimated]
    variance = (p * (1 - p))[affects_accuracy[estimated]].sum()
    return Repeatability(
        n=n,
        expected_flips=float(p.sum()),
        flip_share=float(p.mean()),
        doubtful=int((p > DOUBTFUL).sum()),
        accuracy_stderr=float(np.sqrt(variance) / n) if own_noise else None,
        unknown=len(decided) - n,
    )
