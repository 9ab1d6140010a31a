"""Two runs on the same images: which decides better, and is it more than chance?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bench.errors import UserError
from bench.stats.differences import differences, differing_identity, training_warning
from bench.stats.metrics import accuracy_interval
from bench.store.arrow import indices, values
from bench.store.decisions import Decisions, read_decisions
from bench.store.documents import Document, Manifest
from bench.store.folder import read_manifest

ALPHA = 0.05
SAMPLES_AT_ONCE = 8192
Z95 = 1.959963984540054  # standard errors to either side of a 95 % interval

Bools = NDArray[np.bool_]


class ClassDifference(Document):
    """One class with samples: how often each side has it right, and the paired test of it.

    `p_adjusted` controls the false discovery rate over the classes (Benjamini & Hochberg 1995):
    of many classes some differ by chance alone.
    """

    name: str = Field(alias="class")
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    wins: int
    losses: int
    mcnemar_p: float
    p_adjusted: float


class Comparison(Document):
    """Run B against run A, the baseline, on the samples that both decided.

    Attributes:
        run_a: A's id.
        run_b: B's id.
        n: pairs.
        accuracy_a: A's share of right decisions.
        accuracy_b: B's.
        difference: B less A.
        difference_ci95: its 95 % score interval.
        wins: samples that B alone has right.
        losses: samples that A alone has right.
        ties: all others.
        mcnemar_p: two-sided, exact.
        significant: p < 0.05.
        regression: significant, and B is worse.
        agreement: share of equal predictions.
        agreement_ci95: its 95 % Wilson interval.
        per_class: of each class with samples.
        cost_ratio: evaluation equivalents, B over A; None: a side's are not known.
        seconds_ratio: seconds of scoring, B over A; None: a side's are not known.
        settings: parts of the identity that differ, name → [A's, B's].
        differences: the same in words.
        warnings: what a reader must know before believing it.
    """

    run_a: str
    run_b: str
    n: int
    accuracy_a: float
    accuracy_b: float
    difference: float
    difference_ci95: tuple[float, float]
    wins: int
    losses: int
    ties: int
    mcnemar_p: float
    significant: bool
    regression: bool
    agreement: float
    agreement_ci95: tuple[float, float]
    per_class: list[ClassDifference]
    cost_ratio: float | None
    seconds_ratio: float | None
    settings: dict[str, list[Any]]
    differences: dict[str, list[Any]]
    warnings: list[str]


def compare(path_a: Path, path_b: Path) -> Comparison:
    """Compare run B with run A, the baseline, on the samples that both decided.

    Args:
        path_a: the folder of A.
        path_b: the folder of B.

    Raises:
        UserError: dataset, version, split or classes differ, a sample's label does, or the runs
            share no sample. Anything less is a warning in the result.
    """
    manifests = read_manifest(path_a), read_manifest(path_b)
    check_comparable(*manifests)
    a, b = (read_decisions(p, m) for p, m in zip((path_a, path_b), manifests, strict=True))
    rows_a, rows_b = shared_rows(a, b)
    names = [m.run_id for m in manifests]
    if not len(rows_a):
        raise UserError(f"{names[0]} and {names[1]} share no decided sample.")
    labels = a.labels[rows_a]
    if (labels != b.labels[rows_b]).any():
        raise UserError(f"{names[0]} and {names[1]} give the same samples different labels.")
    right_a, right_b = a.correct[rows_a], b.correct[rows_b]
    n, same = len(labels), int((a.predictions[rows_a] == b.predictions[rows_b]).sum())
    outcome = paired_test(right_a, right_b)
    significant = outcome["mcnemar_p"] < ALPHA
    replayed = any(m.replayed_from for m in manifests)
    return Comparison(
        run_a=names[0],
        run_b=names[1],
        n=n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        **outcome,
        significant=significant,
        regression=significant and outcome["difference"] < 0,
        agreement=same / n,
        agreement_ci95=accuracy_interval(same, n),
        per_class=class_differences(labels, right_a, right_b, manifests[0].classes),
        cost_ratio=_ratio(a.equivalents[rows_a], b.equivalents[rows_b]),
        seconds_ratio=None if replayed else _ratio(a.seconds[rows_a], b.seconds[rows_b]),
        settings=differing_identity(*manifests),
        differences=differences(*manifests),
        warnings=_warnings(manifests, (a, b), n),
    )


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Refuse runs whose samples or classes are not the same things.

    Raises:
        UserError: dataset, version, split or classes differ; the message says which.
    """
    kinds = (
        ("dataset", a.dataset.name, b.dataset.name),
        ("version of the dataset", a.dataset.version, b.dataset.version),
        ("split", a.dataset.split, b.dataset.split),
    )
    for words, has_a, has_b in kinds:
        if has_a != has_b:
            raise UserError(
                f"These runs do not compare, the {words} differs: {a.run_id} has"
                f" {has_a!r}, {b.run_id} has {has_b!r}."
            )
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has {odd[0]!r}" if odd else "their order differs"
        raise UserError(
            f"These runs do not compare, the classes of {a.run_id} and {b.run_id} differ: {what}."
        )


def shared_rows(a: Decisions, b: Decisions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows in A and in B of the samples that both have, int64 [n] each."""
    import pyarrow.compute as pc

    where = pc.index_in(a.sample_ids, value_set=b.sample_ids)
    rows_a = np.flatnonzero(where.is_valid().to_numpy(zero_copy_only=False))
    return rows_a, where.drop_null().to_numpy().astype(np.int64)


def paired_wins(decided: Iterable[Decisions]) -> NDArray[np.int64]:
    """Return int64 [R, R]: how many samples run i has right that run j has and has wrong.

    One product of matrices instead of R² pairings, over a few thousand samples at a time. Of each
    run only the bits are kept: the next one is read when it is gone.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known: Any = None  # the ids of all samples so far
    answers = []  # of each run: the places of its samples in `known`, and whether they are right
    for run in decided:
        known = run.sample_ids if known is None else known
        place = values(pc.index_in(run.sample_ids, value_set=known), -1)
        if (new := place < 0).any():
            added = run.sample_ids.take(indices(np.flatnonzero(new)))
            place = np.where(new, len(known) + np.cumsum(new) - 1, place)
            known = pa.concat_arrays([known, added])
        answers.append((place, run.correct))
    has, right = (np.zeros((len(answers), len(known)), dtype=bool) for _ in range(2))
    for row, (place, correct) in enumerate(answers):
        has[row, place], right[row, place] = True, correct
    wins = np.zeros((len(answers), len(answers)), dtype=np.int64)
    for start in range(0, len(known), SAMPLES_AT_ONCE):
        part = np.s_[:, start : start + SAMPLES_AT_ONCE]
        mine, wrong = right[part].astype(np.float32), (has[part] & ~right[part]).astype(np.float32)
        wins += (mine @ wrong.T).astype(np.int64)  # exact: float32 counts to 16 million
    return wins


def paired_test(right_a: Bools, right_b: Bools) -> dict[str, Any]:
    """Return wins, losses, ties, exact McNemar p, and B's difference with its 95 % interval.

    McNemar's exact test (Psychometrika 1947) is a two-sided sign test on the samples that one
    side alone has right.

    Args:
        right_a: bool [n], whether A is right.
        right_b: bool [n], whether B is right on the same samples.
    """
    n = len(right_a)
    wins, losses = int((right_b & ~right_a).sum()), int((right_a & ~right_b).sum())
    return {
        "difference": (wins - losses) / n,
        "difference_ci95": difference_interval(wins, losses, n),
        "wins": wins,
        "losses": losses,
        "ties": n - wins - losses,
        "mcnemar_p": float(mcnemar(wins, losses)),
    }


def difference_interval(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of the difference of two paired shares.

    Tango, Statistics in Medicine 17 (1998): the differences d that a score test does not reject.
    It has a width where no pair differs, too: then its ends are ± z² / (n + z²).

    Args:
        wins: pairs that B alone has right.
        losses: pairs that A alone has right.
        n: all pairs.
    """
    from scipy.optimize import brentq

    def excess(d: float, side: int) -> float:
        """How far the observed difference lies beyond the z-th standard error from `d`."""
        linear = (2 * n - wins + losses) * d - wins - losses
        constant = -losses * d * (1 - d)
        root = max(linear**2 - 8 * n * constant, 0.0) ** 0.5
        share = (root - linear) / (4 * n)  # of losses, the likeliest if the difference is d
        variance = max(n * (2 * share + d * (1 - d)), 0.0)
        return float(side * (wins - losses - n * d) - Z95 * variance**0.5)

    observed, near = (wins - losses) / n, 1e-9
    low = -1.0 if losses == n else brentq(excess, -1.0, observed - near, (1,))
    high = 1.0 if wins == n else brentq(excess, observed + near, 1.0, (-1,))
    return float(low), float(high)


def mcnemar(wins: Any, losses: Any) -> Any:
    """Return the two-sided p of the exact McNemar test; 1 where no pair differs.

    Twice the lower tail of Binomial(wins + losses, 1/2) at the smaller of the two. Whole numbers,
    or arrays of them.
    """
    from scipy.special import bdtr

    return np.minimum(1.0, 2 * bdtr(np.minimum(wins, losses), np.add(wins, losses), 0.5))


def class_differences(
    labels: NDArray[np.int64], right_a: Bools, right_b: Bools, classes: Sequence[str]
) -> list[ClassDifference]:
    """Return the difference of each class that has samples."""
    from scipy.stats import false_discovery_control

    def count(chosen: Bools) -> NDArray[np.int64]:
        return np.bincount(labels[chosen], minlength=len(classes))

    n = np.bincount(labels, minlength=len(classes))
    hits_a, hits_b = count(right_a), count(right_b)
    wins, losses = count(right_b & ~right_a), count(right_a & ~right_b)
    seen = np.flatnonzero(n).tolist()
    p = mcnemar(wins[seen], losses[seen])
    return [
        ClassDifference(
            name=classes[c],
            n=int(n[c]),
            accuracy_a=float(hits_a[c] / n[c]),
            accuracy_b=float(hits_b[c] / n[c]),
            difference=float((hits_b[c] - hits_a[c]) / n[c]),
            wins=int(wins[c]),
            losses=int(losses[c]),
            mcnemar_p=float(p_alone),
            p_adjusted=float(adjusted),
        )
        for c, p_alone, adjusted in zip(seen, p, false_discovery_control(p), strict=True)
    ]


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    return float(b.sum() / a.sum()) if a.sum() > 0 and b.sum() > 0 else None


def _warnings(manifests: Sequence[Manifest], decided: Sequence[Decisions], n: int) -> list[str]:
    """Return what a reader must know before believing the comparison."""
    said = []
    prints = [m.identity.dataset.fingerprint for m in manifests]
    if prints[0] != prints[1]:
        said.append(
            f"The data differs (fingerprint {prints[0][:8]} in A, {prints[1][:8]} in B): samples"
            " are paired by id, but images were added, left out, changed or encoded anew."
        )
    for manifest, own in zip(manifests, decided, strict=True):
        name, asked = manifest.run_id, len(manifest.samples)
        if len(own) < asked:
            said.append(f"{name} is not complete: {len(own)} of {asked} images are decided.")
        if len(own) > n:
            said.append(
                f"{len(own) - n} of {name}'s {len(own)} images are left out: only it has them."
            )
        if failed := int(own.failed.sum()):
            said.append(f"{failed} images failed in {name} and count as wrong.")
    total = manifests[0].dataset.n_total
    if n < total:
        said.append(f"This is a subset: {n} of the split's {total} images.")
    if training := training_warning(*manifests):
        said.append(training)
    if manifests[0].identity.prompts != manifests[1].identity.prompts:
        said.append("They ask with different prompts.")
    return said
