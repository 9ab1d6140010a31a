"""Two stored runs compared: what differs between them, and how far the comparison goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts.metrics import difference_metric
from bench.errors import UserError
from bench.stats.differences import differences, differing_identity, training_warning
from bench.stats.many import Answers, compare_all
from bench.stats.paired import (
    ALPHA,
    ClassDifference,
    class_differences,
    paired_test,
    shared_rows,
)
from bench.stats.shares import accuracy_interval
from bench.store.decisions import Decisions
from bench.store.documents import Manifest
from bench.store.fields import Document
from bench.store.runs import read_run

MACHINE = ("platform", "cpus")  # of a manifest's environment


class MetricDifference(Document):
    """Another metric than accuracy, of two runs on the same images.

    Attributes:
        metric: which one.
        a: A's.
        b: B's.
        difference: B less A.
        difference_ci95: its 95 % interval, of a bootstrap over the images.
        p: of a paired permutation test, two-sided.
    """

    metric: str
    a: float
    b: float
    difference: float
    difference_ci95: tuple[float, float]
    p: float


class Comparison(Document):
    """Run B against run A, the baseline, on the samples that both decided.

    Attributes:
        run_a: A's id.
        run_b: B's id.
        n: pairs.
        accuracy_a: A's share of right decisions.
        accuracy_b: B's.
        difference: B less A.
        difference_ci95: its 95 % score interval, widened to 0 where the test does not reject.
        wins: samples that B alone has right.
        losses: samples that A alone has right.
        ties: all others.
        mcnemar_p: two-sided, exact.
        tested: the metric that was asked for, where that is not accuracy.
        significant: p < 0.05, of the metric that was asked for.
        regression: significant, and B is worse.
        agreement: share of equal predictions.
        agreement_ci95: its 95 % Wilson interval.
        per_class: of each class with samples.
        cost_ratio: evaluation equivalents, B over A; None: a side's are not known, or both are not
            of one kind.
        seconds_ratio: seconds of scoring, B over A; None: a side's are not known, or they were
            measured on different days or machines.
        not_divided: of the two ratios, why there is none, where both sides are known.
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
    tested: MetricDifference | None = None
    significant: bool
    regression: bool
    agreement: float
    agreement_ci95: tuple[float, float]
    per_class: list[ClassDifference]
    cost_ratio: float | None
    seconds_ratio: float | None
    not_divided: dict[str, str]
    settings: dict[str, list[Any]]
    differences: dict[str, list[Any]]
    warnings: list[str]


def compare(path_a: Path, path_b: Path, metric: str = "accuracy") -> Comparison:
    """Compare run B with run A, the baseline, on the samples that both decided.

    Args:
        path_a: the folder of A.
        path_b: the folder of B.
        metric: what is tested; accuracy is compared with any.

    Raises:
        UserError: dataset, version, split or classes differ, a sample's label does, or the runs
            share no sample, or differences are not tested in this metric. Anything less is a
            warning in the result.
    """
    one, other = read_run(path_a), read_run(path_b)
    check_comparable(one.manifest, other.manifest)
    decided = one.decided(), other.decided()
    return compare_decided((one.manifest, other.manifest), decided, metric)


def compare_decided(
    manifests: tuple[Manifest, Manifest],
    decided: tuple[Decisions, Decisions],
    metric: str = "accuracy",
) -> Comparison:
    """Compare run B with run A, the baseline; see `compare`.

    Args:
        manifests: A's and B's.
        decided: the images that they decided.
        metric: what is tested.

    Raises:
        UserError: as `compare`.
    """
    check_comparable(*manifests)
    difference_metric(metric)
    a, b = decided
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
    p, difference = outcome["mcnemar_p"], outcome["difference"]
    tested: dict[str, MetricDifference] = {}
    if metric != "accuracy":
        said = a.predictions[rows_a], b.predictions[rows_b]
        found = _tested(metric, labels, *said)
        tested, p, difference = {"tested": found}, found.p, found.difference
    significant = p < ALPHA
    why = _not_divided(*manifests)
    costs = None if "cost" in why else _ratio(a.equivalents[rows_a], b.equivalents[rows_b])
    seconds = None if "seconds" in why else _ratio(a.seconds[rows_a], b.seconds[rows_b])
    return Comparison(
        run_a=names[0],
        run_b=names[1],
        n=n,
        accuracy_a=float(right_a.mean()),
        accuracy_b=float(right_b.mean()),
        **outcome,
        **tested,
        significant=significant,
        regression=significant and difference < 0,
        agreement=same / n,
        agreement_ci95=accuracy_interval(same, n),
        per_class=class_differences(labels, right_a, right_b, manifests[0].classes),
        cost_ratio=costs,
        seconds_ratio=seconds,
        not_divided=why,
        settings=differing_identity(*manifests),
        differences=differences(*manifests),
        warnings=_warnings(manifests, (a, b), n),
    )


def _tested(
    metric: str, labels: NDArray[np.int64], *predictions: NDArray[np.int64]
) -> MetricDifference:
    methods = [Answers(name, (of[None, None],)) for name, of in zip("ab", predictions, strict=True)]
    a, b = (float(one.values(metric, labels).mean()) for one in methods)
    found = compare_all(methods, labels, metric)[0]
    return MetricDifference(
        metric=metric,
        a=a,
        b=b,
        difference=found.difference,
        difference_ci95=found.interval,
        p=found.p,
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


def _not_divided(a: Manifest, b: Manifest) -> dict[str, str]:
    """Return which ratios mean nothing, and why: `cost` and `seconds`."""
    why = {}
    if a.classifier or b.classifier:
        kinds = ["passes of a classifier" if m.classifier else "evaluations" for m in (a, b)]
        why["cost"] = f"one of {kinds[0]}, one of {kinds[1]}: not divided"
        if kinds[0] == kinds[1]:
            why["cost"] = "one pass per image each"
    if a.replayed_from or b.replayed_from:
        why["seconds"] = "a replay runs no model"
    elif a.created[:10] != b.created[:10]:
        why["seconds"] = "measured on different days: not divided"
    elif any(a.environment.get(n) != b.environment.get(n) for n in MACHINE):
        why["seconds"] = "measured on different machines: not divided"
    return why


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
