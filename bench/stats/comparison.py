"""Comparison of two stored runs: their difference, its test, and warnings on its validity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from bench.errors import UserError, images_failed
from bench.stats.differences import differences, training_warning
from bench.stats.measures import MetricDifference
from bench.stats.paired import ClassDifference, Paired, class_differences, paired_test
from bench.stats.shares import accuracy_interval
from bench.store.decisions import Decisions, shared_rows
from bench.store.documents import Manifest, changed_code
from bench.store.questions import QuestionAnswer

MACHINE = ("platform", "cpus")  # keys of a manifest's environment; times compare if all agree


class Comparison(Paired):
    """Comparison of run B with run A, the baseline, on the samples that both decided."""

    run_a: str  # id of A
    run_b: str  # id of B
    tested: MetricDifference | None = None  # the tested metric; None if it is accuracy
    significant: bool  # whether p <= 0.05 for the tested metric
    regression: bool  # whether B is significantly worse in the tested metric
    agreement: float  # share of samples with equal predictions
    agreement_ci95: tuple[float, float]
    per_class: list[ClassDifference]  # accuracies of each class with samples
    cost_ratio: float | None  # evaluation equivalents, B / A
    seconds_ratio: float | None  # scoring time, B / A
    not_divided: dict[str, str]  # `cost` or `seconds` → reason why its ratio is meaningless
    differences: dict[str, list[Any]]  # settings that differ, by the names of options → [A's, B's]
    warnings: list[str]  # warnings on the validity of the comparison
    sequential: QuestionAnswer | None = None  # sequential test in random order, if requested


def compare_decided(
    manifests: tuple[Manifest, Manifest], decided: tuple[Decisions, Decisions]
) -> Comparison:
    """Compare the accuracies of A, the baseline, and B on the samples that both decided.

    Both arguments are (A, B). Other differences than these give a warning in the result.

    Raises:
        UserError: the dataset, its version, the split, the classes or the label of a sample differ,
            or the runs share no decided sample.
    """
    check_comparable(*manifests)
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
    significant = outcome.difference.significant
    reasons = _not_divided(*manifests)
    costs = None if "cost" in reasons else _ratio(a.equivalents[rows_a], b.equivalents[rows_b])
    seconds = None if "seconds" in reasons else _ratio(a.seconds[rows_a], b.seconds[rows_b])
    return Comparison(
        run_a=names[0],
        run_b=names[1],
        **dict(outcome),
        significant=significant,
        regression=significant and outcome.difference.estimate < 0,
        agreement=same / n,
        agreement_ci95=accuracy_interval(same, n),
        per_class=class_differences(labels, right_a, right_b, manifests[0].classes),
        cost_ratio=costs,
        seconds_ratio=seconds,
        not_divided=reasons,
        differences=differences(*manifests),
        warnings=_warnings(manifests, (a, b), n),
    )


def check_comparable(a: Manifest, b: Manifest) -> None:
    """Raise a UserError if dataset, version of the dataset, split or classes of two runs differ."""
    names = {"name": "dataset", "version": "version of the dataset", "split": "split"}
    for field, name in names.items():
        of_a, of_b = getattr(a.dataset, field), getattr(b.dataset, field)
        if of_a != of_b:
            raise UserError(
                f"These runs are not comparable, because the {name} differs: {a.run_id} has"
                f" {of_a!r}, {b.run_id} has {of_b!r}."
            )
    if a.classes != b.classes:
        odd = sorted(set(a.classes) ^ set(b.classes))
        what = f"only one has {odd[0]!r}" if odd else "their order differs"
        raise UserError(
            f"These runs are not comparable, because the classes of {a.run_id} and {b.run_id}"
            f" differ: {what}."
        )


def _not_divided(a: Manifest, b: Manifest) -> dict[str, str]:
    """Return the reasons why costs or times of two runs have no meaningful ratio."""
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
    warnings = []
    prints = [m.identity.dataset.fingerprint for m in manifests]
    if prints[0] != prints[1]:
        warnings.append(
            f"The data differs (fingerprint {prints[0][:8]} in A, {prints[1][:8]} in B): samples"
            " are paired by id, but images were added, removed, changed or re-encoded."
        )
    for manifest, own in zip(manifests, decided, strict=True):
        name, requested = manifest.run_id, len(manifest.samples)
        if len(own) < requested:
            warnings.append(f"{name} is incomplete: {len(own)} of {requested} images are decided.")
        if len(own) > n:
            warnings.append(
                f"{len(own) - n} of {name}'s {len(own)} images are left out, because the other"
                " run lacks them."
            )
        if failed := int(own.failed.sum()):
            warnings.append(f"{images_failed(failed)} in {name}, counted as wrong.")
    total = manifests[0].dataset.n_total
    if n < total:
        warnings.append(f"This is a subset: {n} of the split's {total} images.")
    if training := training_warning(*manifests):
        warnings.append(training)
    a, b = (manifest.identity for manifest in manifests)
    if a.prompts != b.prompts and not (a.learned_from or b.learned_from):  # unused if learned
        warnings.append("Their prompts differ.")
    if changed := changed_code(manifests):
        warnings.append(f"The code of {' and '.join(changed)} changed between the runs.")
    return warnings
