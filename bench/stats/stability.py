"""The Monte-Carlo error of the classifier itself: what another seed would have decided."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.store.decisions import Decided, as_decisions
from bench.store.fields import Amount, Count, Document, Share

DOUBTFUL = 0.05  # a decision that another seed flips with more than this probability


class Stability(Document):
    """How many decisions another seed would flip, and what that does to the accuracy.

    Attributes:
        n: the decisions whose margin has a standard error.
        expected_flips: how many of them another seed would flip.
        flip_share: their share.
        doubtful: decisions that it flips with a probability above 0.05.
        accuracy_stderr: the standard deviation of the accuracy over seeds, images and labels held
            fixed. (The Wilson interval, in contrast, is about other images.)
    """

    n: Count
    expected_flips: Amount
    flip_share: Share
    doubtful: Count
    accuracy_stderr: Amount


def flip_probability(
    margins: NDArray[np.float64], margin_stderr: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return for each decision the probability that a run with another seed decides otherwise.

    The margin, the runner-up's score less the winner's, is a mean over draws, so nearly normal
    about its expectation. Two independent runs' margins differ with variance 2 s², and with no
    prior knowledge of the expectation P(the other margin < 0) = Phi(-m / (s sqrt(2))): the
    predictive distribution of a normal mean under a flat prior (Gelman et al., Bayesian Data
    Analysis, section 2.5). Classes behind the runner-up are left out, which makes it too low
    where several are close; that the winner was *chosen* by its lead makes it too low as well.

    Args:
        margins: float64 [n]; NaN where unknown.
        margin_stderr: float64 [n], the standard error s; NaN where unknown.

    Returns:
        float64 [n]; NaN where the margin or its standard error is unknown.
    """
    from scipy.stats import norm

    with np.errstate(divide="ignore", invalid="ignore"):
        flips = norm.sf(margins / (margin_stderr * np.sqrt(2)))
    return np.where(
        np.isfinite(margins) & (margin_stderr == 0), np.where(margins > 0, 0, 0.5), flips
    )


def stability(decided: Decided) -> Stability | None:
    """Return how many decisions another seed would flip; None: no margin has a standard error.

    A flip changes whether a wrong decision is right only where the runner-up is the label; where
    the runner-up was not read, it is taken to be.
    """
    decided = as_decisions(decided)
    flips = flip_probability(decided.margins, decided.margin_stderr)
    known = np.isfinite(flips)
    if not known.any():
        return None
    matters = decided.correct | (
        True if decided.runner_up is None else decided.runner_up == decided.labels
    )
    n, p = int(known.sum()), flips[known]
    return Stability(
        n=n,
        expected_flips=float(p.sum()),
        flip_share=float(p.mean()),
        doubtful=int((p > DOUBTFUL).sum()),
        accuracy_stderr=float(np.sqrt((p * (1 - p))[matters[known]].sum()) / n),
    )
