"""Paired tests of two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.contracts.strategy import Ints
from bench.store.arrow import indices, values
from bench.store.decisions import Decisions
from bench.store.fields import Document

ALPHA = 0.05
SAMPLES_AT_ONCE = 8192
ROWS_AT_ONCE = 256  # of the matrix of wins
Z95 = 1.959963984540054  # half-width of a normal 95 % interval in standard errors

Bools = NDArray[np.bool_]


class Paired(Document):
    """Accuracies of run A, the baseline, and run B on the same samples."""

    n: int
    accuracy_a: float  # accuracy of A
    accuracy_b: float  # accuracy of B
    difference: float  # accuracy of B minus accuracy of A
    wins: int  # number of samples that only B gets right
    losses: int  # number of samples that only A gets right
    mcnemar_p: float  # two-sided p-value of McNemar's exact test


class PairedTest(Paired):
    """The paired comparison with a confidence interval of the difference."""

    difference_ci95: tuple[float, float]
    """95 % score interval of the difference, widened to include 0 if McNemar's test does not
    reject."""
    ties: int  # number of samples that both or neither get right


class ClassDifference(Paired):
    """The paired comparison on the samples of one class."""

    name: str = Field(alias="class")  # name of the class
    p_adjusted: float
    """p-value adjusted over the classes (Benjamini & Hochberg 1995), to control the false discovery
    rate: among many classes, some differ by chance alone."""


def shared_rows(a: Decisions, b: Decisions) -> tuple[Ints, Ints]:
    """Return the rows in A and in B of the samples that both have, int64 [n], in A's order."""
    import pyarrow.compute as pc

    place = values(pc.index_in(a.sample_ids, value_set=b.sample_ids), -1)
    rows = np.flatnonzero(place >= 0)
    return rows, place[rows].astype(np.int64)


def changed_samples(a: Decisions, b: Decisions, show: str = "changed") -> tuple[Ints, Ints]:
    """Return the rows in A, the baseline, and in B of the shared images that `show` selects.

    `show` is `wins` (only B is right), `losses` (only A is right), `wrong` (both are wrong) or
    `changed` (the predictions differ).
    """
    rows_a, rows_b = shared_rows(a, b)
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    kept = {
        "wins": right_b & ~right_a,
        "losses": right_a & ~right_b,
        "wrong": ~right_a & ~right_b,
    }.get(show, a.predictions[rows_a] != b.predictions[rows_b])
    return rows_a[kept], rows_b[kept]


def paired_wins(decided: Iterable[Decisions]) -> NDArray[np.int32]:
    """Return the number of samples that run i gets right and run j gets wrong, int32 [R, R].

    A pair is counted on the samples that both have. One matrix product replaces R² pairings. It is
    taken over a few thousand samples at a time, and only two booleans per run and sample are kept.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ids: Any = None  # ids of all samples so far
    answers = []  # for each run, the positions of its samples in `ids` and whether they are right
    for run in decided:
        ids = run.sample_ids if ids is None else ids
        place = values(pc.index_in(run.sample_ids, value_set=ids), -1)
        if (new := place < 0).any():
            added = run.sample_ids.take(indices(np.flatnonzero(new)))
            place = np.where(new, len(ids) + np.cumsum(new) - 1, place)
            ids = pa.concat_arrays([ids, added])
        answers.append((place, run.correct))
    has, right = (np.zeros((len(answers), len(ids)), dtype=bool) for _ in range(2))
    for row, (place, correct) in enumerate(answers):
        has[row, place], right[row, place] = True, correct
    wins = np.zeros((len(answers), len(answers)), dtype=np.int32)
    for start in range(0, len(ids), SAMPLES_AT_ONCE):
        part = np.s_[:, start : start + SAMPLES_AT_ONCE]
        mine, wrong = right[part].astype(np.float32), (has[part] & ~right[part]).astype(np.float32)
        for row in range(0, len(wins), ROWS_AT_ONCE):  # float32 is exact up to 16 million
            rows = np.s_[row : row + ROWS_AT_ONCE]
            wins[rows] += (mine[rows] @ wrong.T).astype(np.int32)
    return wins


def paired_test(right_a: Bools, right_b: Bools) -> PairedTest:
    """Return McNemar's exact test of two runs, with an interval of their difference.

    The test (Psychometrika 1947) is a two-sided sign test on the samples that exactly one run gets
    right. The interval is Tango's, widened to include 0 if the test does not reject.
    """
    n = len(right_a)
    wins, losses = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
    p = float(mcnemar(wins, losses))
    return PairedTest(
        n=n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        difference=(wins - losses) / n,
        wins=wins,
        losses=losses,
        mcnemar_p=p,
        difference_ci95=with_zero(difference_interval(wins, losses, n), p),
        ties=n - wins - losses,
    )


def with_zero(interval: tuple[float, float], p: float) -> tuple[float, float]:
    """Return the interval of a difference, widened to include 0 if its p-value exceeds 5 %."""
    return interval if p <= ALPHA else (min(interval[0], 0.0), max(interval[1], 0.0))


def difference_interval(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of the difference of two paired proportions.

    It consists of the differences that a score test does not reject (Tango, Statistics in Medicine
    17, 1998). If no pair differs, its ends are ± z² / (n + z²). `n` includes ties.
    """
    from scipy.optimize import brentq

    def excess(d: float, side: int) -> float:
        return float(side * (wins - losses - n * d) - Z95 * _standard_error(wins, losses, n, d))

    observed, near = (wins - losses) / n, 1e-9
    low = -1.0 if losses == n else brentq(excess, -1.0, observed - near, (1,))
    high = 1.0 if wins == n else brentq(excess, observed + near, 1.0, (-1,))
    return float(low), float(high)


def equality_p(wins: int, losses: int, n: int, margin: float) -> float:
    """Return the p-value of two one-sided score tests of equality, with Tango's z.

    The null hypothesis is a difference of at least `margin` in absolute value. `n` includes ties.
    """
    from scipy.special import ndtr

    low, high = (
        (wins - losses - n * d) / max(_standard_error(wins, losses, n, d), 1e-12)
        for d in (-margin, margin)
    )
    return float(max(ndtr(-low), ndtr(high)))


def _standard_error(wins: int, losses: int, n: int, d: float) -> float:
    """Return the standard error of wins - losses if the true difference is `d` (Tango)."""
    linear = (2 * n - wins + losses) * d - wins - losses
    constant = -losses * d * (1 - d)
    root = max(linear**2 - 8 * n * constant, 0.0) ** 0.5
    loss_rate = (root - linear) / (4 * n)  # maximum-likelihood estimate given d
    return float(max(n * (2 * loss_rate + d * (1 - d)), 0.0) ** 0.5)


def mcnemar(wins: Any, losses: Any) -> Any:
    """Return the two-sided p-value of McNemar's exact test, a number or array as the counts.

    It is twice the lower tail of Binomial(wins + losses, 1/2) at the smaller count, at most 1.
    """
    from scipy.special import bdtr

    fewer, discordant = np.minimum(wins, losses), np.add(wins, losses)
    # Each combination of counts is tested once: a million pairs of runs have a few thousand.
    step = np.max(discordant, initial=0) + 1
    cases, place = np.unique(fewer * step + discordant, return_inverse=True)
    p = np.minimum(1.0, 2 * bdtr(cases // step, cases % step, 0.5))
    return p[place].reshape(np.shape(fewer))


def class_differences(
    labels: Ints, right_a: Bools, right_b: Bools, classes: Sequence[str]
) -> list[ClassDifference]:
    """Return the paired comparison of each class that has samples, in label order."""
    from scipy.stats import false_discovery_control

    def count_by_class(chosen: Bools) -> Ints:
        return np.bincount(labels[chosen], minlength=len(classes))

    n = np.bincount(labels, minlength=len(classes))
    hits_a, hits_b = count_by_class(right_a), count_by_class(right_b)
    wins, losses = count_by_class(right_b & ~right_a), count_by_class(right_a & ~right_b)
    present = np.flatnonzero(n).tolist()
    p = mcnemar(wins[present], losses[present])
    return [
        ClassDifference(
            name=classes[c],
            n=int(n[c]),
            accuracy_a=float(hits_a[c] / n[c]),
            accuracy_b=float(hits_b[c] / n[c]),
            difference=float((hits_b[c] - hits_a[c]) / n[c]),
            wins=int(wins[c]),
            losses=int(losses[c]),
            mcnemar_p=float(unadjusted),
            p_adjusted=float(adjusted),
        )
        for c, unadjusted, adjusted in zip(present, p, false_discovery_control(p), strict=True)
    ]
