"""An audit: how many decisions of a run are those of the full sweep, by a random part of them."""

from __future__ import annotations

from math import log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.stats.risk import LEVEL
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Manifest
from bench.store.fields import Amount, Count, Document, Interval, Positive
from bench.store.identity import digest
from bench.store.swept import permuted, read_swept

# Beta prior of the share that agrees: mean 0.984, worth 30 images. With a uniform one, 30 of 30
# would show 82 % of 360 and not 90, and 28 of 30 as much as here; it holds at any share.
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
    from scipy.special import betaln, gammaln

    def choose(total: NDArray[np.float64] | int, part: NDArray[np.float64] | int) -> np.float64:
        """Log of the binomial coefficient."""
        total, part = np.asarray(total, float), np.asarray(part, float)
        return gammaln(total + 1) - gammaln(part + 1) - gammaln(total - part + 1)  # type: ignore[no-any-return]

    a, b = AGREEMENT_PRIOR
    counts = np.arange(same, population - (n - same) + 1, dtype=np.float64)
    drawn = choose(counts, same) + choose(population - counts, n - same) - choose(population, n)
    expected = choose(n, same) + betaln(a + same, b + n - same) - betaln(a, b)
    kept = counts[expected - drawn < -log(1 - LEVEL)]
    return int(kept[0]), int(kept[-1])


def read_audit(path: Path, manifest: Manifest, decided: Decisions | None = None) -> Audit | None:
    """Return the audit of a run's decisions, read where they are not given; None: there is none.

    Counted are the swept images up to the first one of the run's permutation that was not: so many
    are a simple random sample, whatever was swept when.
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
    What ended an image does not say it: its winner may have been dropped before the draws ran out.
    Where a sweep may cost more for one image than for another, all of them are sweepable.
    """
    uneven = manifest.items is not None or manifest.identity.candidates is not None
    return np.asarray(~decided.failed & ((decided.evaluations < most) | uneven))
